"""Text as documents, and documents as tokens.

A document is a file, or a part of the builtin text. It is read in blocks and never whole, so that a file may be larger
than the memory; blocks are cut where the tokenizer's pattern cuts too, so that the tokens do not depend on it. In
tokens, a document is framed as its tokenizer frames one: `Tokenizer.frame`. A file may hold several documents, a line
of JSON each or with a separator between them: `Reading`.

Text is UTF-8, or UTF-16 or UTF-32 where a byte-order mark says so. The mark is dropped, and bytes that are not UTF-8
become U+FFFD; everything else, NULs and carriage returns included, is kept as it is.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from core import signals
from core.data.digests import file_sha256
from core.errors import DataError
from core.outside import open_file, reads
from core.tokenizers.tokenizer import Tokenizer

A = TypeVar("A")
B = TypeVar("B")
Progress = Callable[[int, int, str], None]  # done, total, of what

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

TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class Document:
    """A text with a name. `blocks()` reads it from the start each time; `digest` is the sha256 of its bytes, and of how
    they are read. each: every block is a document by itself, not a part of one."""

    name: str
    size: int  # bytes
    digest: str
    blocks: Callable[[], Iterator[str]]
    each: bool = False


@dataclass(frozen=True)
class Reading:
    """How files hold documents. field: of each line's object in a .jsonl, the one with the text. separator: the text
    between the documents of a text file; "": a file is one document."""

    field: str = ""
    separator: str = ""


WHOLE = Reading()  # a file is a document


def corpus_digest(documents: Sequence[Document]) -> str:
    """One hash of all documents in their order."""
    return hashlib.sha256("\n".join(d.digest for d in documents).encode()).hexdigest()


def text_document(path: Path, notes: list[str], reading: Reading = WHOLE) -> Document:
    """A text file as a document, or as several with a separator between them; reading it may add to `notes`.

    DataError for a path without a file.
    """
    with reads(DataError, path):
        size, digest = size_and_digest(path)
        if path.suffix.lower() in TABLES:
            notes.append(
                f"{path}: a table is read as plain text, with its commas, quotes and all columns; a .jsonl is not"
            )
        if reading.separator:
            cut = reading.separator
            return Document(str(path), size, f"{digest} {cut}", lambda: _between(path, cut, notes), each=True)
        return Document(str(path), size, digest, lambda: read_blocks(path, notes))


def size_and_digest(path: Path) -> tuple[int, str]:
    """Of a file: bytes, and the sha256 of its contents. DataError for a path without a file; OSError as it comes."""
    if not path.is_file():
        raise DataError(
            f"{path}: expected a file, got something else (a pipe, a device, a dangling link)", hint="leave it out"
        )
    return path.stat().st_size, file_sha256(path)


def folder_files(folder: Path) -> list[Path]:
    """All files below a folder in the order of their names, hidden ones left out; each folder once, links followed."""
    found: list[Path] = []
    seen = {os.path.realpath(folder)}
    for root, folders, files in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(root, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        found += [Path(root) / name for name in files if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


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
            cut_off = decoder.getstate()[0]  # the begin of a character, from the block before
            new = decoder.decode(raw, not raw)
            here = new.count("\ufffd") - (tail + raw).count(b"\xef\xbf\xbd")  # but those that stand in the file
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
    """The blocks of a file in the encoding that its mark says. DataError where it is not."""
    decoder, text = codecs.getincrementaldecoder(encoding)("strict"), ""
    with open_file(path) as file:
        while True:
            raw = file.read(BLOCK_BYTES)
            try:
                text += decoder.decode(raw, not raw)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: begins with the mark of {encoding.upper()} and is no {encoding.upper()}: {error.reason}",
                    hint="save it as UTF-8, or leave it out",
                ) from None
            if not raw:
                break
            if cut := _cut(text):
                yield text[:cut]
                text = text[cut:]
    if text:
        yield text


def _between(path: Path, separator: str, notes: list[str]) -> Iterator[str]:
    """The texts between separators, without white space around them; empty ones are left out."""
    rest = ""
    for block in read_blocks(path, notes):
        *whole, rest = (rest + block).split(separator)
        yield from (text for part in whole if (text := part.strip()))
    if text := rest.strip():
        yield text


def _cut(text: str) -> int:
    """Where to cut: before the last white space that follows a letter or digit, one blank before a letter where there
    is one. No piece of the pattern spans that place or looks beyond it, and a tokenizer that puts a blank before what
    it gets has one to put there (`encode_more`): both parts tokenise as the whole does. 0: nowhere yet."""
    for boundary in BOUNDARIES:
        for start in (max(0, len(text) - 4096), 0):
            cut = 0
            for found in boundary.finditer(text, start):
                cut = found.end()
            if cut:
                return cut
    return LONGEST_BLOCK if len(text) > LONGEST_BLOCK else 0


def tokenise(
    documents: Sequence[Document], tokenizer: Tokenizer, progress: Progress | None = None
) -> Iterator[NDArray[np.int32]]:
    """The documents' tokens in order, in chunks (n,) int32, each document in the tokenizer's frame."""
    between, begin = (np.array(ids, np.int32) for ids in tokenizer.frame)
    total, done = sum(document.size for document in documents), 0

    def pieces() -> Iterator[tuple[str, int | None, Document]]:
        """Texts, each with the number of the document that it begins, None where the document continues."""
        number = 0
        for document in documents:
            if not document.each:
                blocks = iter(["".join(document.blocks())]) if tokenizer.whole else document.blocks()
                yield next(blocks, ""), number, document
                yield from ((text, None, document) for text in blocks)
                number += 1
                continue
            for text in document.blocks():
                yield text, number, document
                number += 1

    def encode(piece: tuple[str, int | None, Document]) -> tuple[NDArray[np.int32], int, Document]:
        text, number, document = piece
        if number is None:
            return tokenizer.encode_more(text), len(text), document
        return np.concatenate([*[between][: number > 0], begin, tokenizer.encode(text)]), len(text), document

    for tokens, characters, document in _parallel(encode, pieces()):
        yield tokens
        done = min(total, done + characters)
        if progress is not None:
            progress(done, total, f"tokenising {Path(document.name).name}")


def _parallel(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """work(item) in order, a few at a time: the encoder lets go of Python's lock."""
    waiting: deque[Future[B]] = deque()
    workers = min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            signals.check()
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # on Ctrl-C: do not finish the queue first
