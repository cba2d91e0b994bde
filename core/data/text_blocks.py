"""The text of a file in blocks, never whole, so that a file may be larger than the memory.

Blocks are cut where the tokenizer's pattern cuts too, so that the tokens do not depend on it. Text is UTF-8, or UTF-16
or UTF-32 by a byte-order mark. The mark is dropped, and bytes that are not UTF-8 become U+FFFD; everything
else, NULs and carriage returns included, is kept as it is.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from core.errors import DataError
from core.outside import open_file, reads

BLOCK_BYTES = 1 << 20
LONGEST_BLOCK = 16 << 20  # characters: a text without a single word boundary is cut here
BAD_SHARE = 0.1  # a file with more bytes than this that are not UTF-8 is no text
BOUNDARIES = (re.compile(r"[^\W_](?= [^\W_])"), re.compile(r"[^\W_](?=[ \t\r\n])"))  # the first that there is
MARKS = {  # byte-order mark -> encoding, the longer ones first
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
WIDE = {"0101", "1010", "0111", "1110"}  # which of four bytes are NUL in ASCII as UTF-16 or UTF-32, of either end


def read_blocks(path: Path, notes: list[str]) -> Iterator[str]:
    """A file's text in blocks of about a megabyte."""
    with reads(DataError, path):
        yield from _read_blocks(path, notes)


def _read_blocks(path: Path, notes: list[str]) -> Iterator[str]:
    with open_file(path) as file:
        begin = file.read(4096)
    marked = next((encoding for mark, encoding in MARKS.items() if begin.startswith(mark)), None)
    if marked:
        yield from _marked_blocks(path, marked)
        return
    if _looks_wide(begin):
        raise DataError(
            f"{path}: {begin.count(0):,} of its first {len(begin):,} bytes are 0, as in UTF-16 or UTF-32: expected "
            "UTF-8, or a byte-order mark",
            hint="save it as UTF-8 (iconv -f utf-16le -t utf-8), or leave it out",
        )
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    text, tail, bad, at = "", b"", 0, 0
    with open_file(path) as file:
        while True:
            raw = file.read(BLOCK_BYTES)
            cut_off = decoder.getstate()[0]  # the first bytes of a character, from the block before
            new = decoder.decode(raw, not raw)
            here = new.count("\ufffd") - (tail + raw).count(b"\xef\xbf\xbd")  # except those of the file
            if here > BAD_SHARE * (BLOCK_BYTES if at else max(1, len(raw))):
                raise _no_text(path, cut_off + raw, at - len(cut_off))
            text, tail, bad, at = text + new, raw[-2:], bad + here, at + len(raw)
            if not raw:
                break
            cut = _cut(text)
            if cut:
                yield text[:cut]
                text = text[cut:]
    if text:
        yield text
    if bad > 0:
        notes.append(f"{path}: {bad:,} places that are not UTF-8 became U+FFFD")


def _no_text(path: Path, raw: bytes, at: int) -> DataError:
    """A block that is not UTF-8 for the most part; `at`: of its first byte in the file."""
    first = 0
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        first = error.start
    return DataError(
        f"{path}: expected UTF-8 text, got something else from byte {at + first:,} on "
        f"({raw[first : first + 8].hex(' ')} ...)",
        hint="convert it, or leave it out",
    )


def _looks_wide(begin: bytes) -> bool:
    """Whether NULs are where letters of two or four bytes have them: nearly all in some places of four, none in the
    others. NULs of another kind are text."""
    if len(begin) < 16:
        return False
    shares = [begin[place::4].count(0) / len(begin[place::4]) for place in range(4)]
    return all(s <= 0.2 or s >= 0.8 for s in shares) and "".join(str(int(s >= 0.8)) for s in shares) in WIDE


def _marked_blocks(path: Path, encoding: str) -> Iterator[str]:
    """The blocks of a file in the encoding of its mark. DataError where it is not."""
    decoder, text = codecs.getincrementaldecoder(encoding)("strict"), ""
    with open_file(path) as file:
        while True:
            raw = file.read(BLOCK_BYTES)
            try:
                text += decoder.decode(raw, not raw)
            except UnicodeDecodeError as error:
                form = encoding.upper()
                raise DataError(
                    f"{path}: has the byte order mark of {form} and is not valid {form}: {error.reason}",
                    hint="save it as UTF-8, or leave it out",
                ) from None
            if not raw:
                break
            if cut := _cut(text):
                yield text[:cut]
                text = text[cut:]
    if text:
        yield text


def texts_between(path: Path, separator: str, notes: list[str]) -> Iterator[str]:
    """The texts between separators, without white space around them; empty ones are left out."""
    rest = ""
    for block in read_blocks(path, notes):
        *whole, rest = (rest + block).split(separator)
        yield from (text for part in whole if (text := part.strip()))
    if text := rest.strip():
        yield text


def _cut(text: str) -> int:
    """The place of a cut: before the last white space that follows a letter or digit, one blank before a letter where
    there is one. No piece of the pattern spans that place or looks beyond it, and a tokenizer that puts a blank before
    its text has one to put there (`encode_more`): both parts tokenise as the whole does. 0: nowhere yet."""
    for boundary in BOUNDARIES:
        for start in (max(0, len(text) - 4096), 0):
            cut = 0
            for boundary_match in boundary.finditer(text, start):
                cut = boundary_match.end()
            if cut:
                return cut
    return LONGEST_BLOCK if len(text) > LONGEST_BLOCK else 0
