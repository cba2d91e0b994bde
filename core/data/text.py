"""Text as documents, and documents as tokens.

A document is a file, or a part of the builtin text. It is read in blocks and never whole, so that a file may be larger
than the memory; blocks are cut where the tokenizer's pattern cuts too, so that the tokens do not depend on it. In
tokens, each document starts with the end-of-text token, as in llm.c's shards.

Text is UTF-8. A byte-order mark is dropped, and bytes that are not UTF-8 become U+FFFD; everything else, NULs and
carriage returns included, is kept as it is.
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
from core.data.tokenizer import Tokenizer
from core.errors import DataError

A = TypeVar("A")
B = TypeVar("B")
Progress = Callable[[int, int, str], None]  # done, total, of what

BLOCK_BYTES = 1 << 20
LONGEST_BLOCK = 16 << 20  # characters: a text without a single word boundary is cut here
BAD_SHARE = 0.1  # a file with more bytes than this that are not UTF-8 is no text
BOUNDARY = re.compile(r"[^\W_](?=[ \t\r\n])")


@dataclass(frozen=True)
class Document:
    """A text with a name. `blocks()` reads it from the start each time; `digest` is the sha256 of its bytes."""

    name: str
    size: int  # bytes
    digest: str
    blocks: Callable[[], Iterator[str]]


def corpus_digest(documents: Sequence[Document]) -> str:
    """One hash of all documents in their order."""
    return hashlib.sha256("\n".join(d.digest for d in documents).encode()).hexdigest()


def text_document(path: Path, notes: list[str]) -> Document:
    """A text file as a document; reading it may add to `notes`."""
    if not path.is_file():
        raise DataError(
            f"{path}: expected a file, got something else (a pipe, a device, a dangling link)", hint="leave it out"
        )
    try:
        return Document(str(path), path.stat().st_size, file_sha256(path), lambda: read_blocks(path, notes))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}", hint="check the path and its rights"
        ) from None


def folder_files(folder: Path) -> list[Path]:
    """All files below a folder in the order of their names, hidden ones left out."""
    found: list[Path] = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root) / name for name in files if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_blocks(path: Path, notes: list[str]) -> Iterator[str]:
    """A file's text in blocks of about a megabyte."""
    try:
        yield from _read_blocks(path, notes)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}", hint="check the disk and the rights"
        ) from None


def _read_blocks(path: Path, notes: list[str]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    text, tail, bad, first = "", b"", 0, True
    with path.open("rb") as file:
        while True:
            raw = file.read(BLOCK_BYTES)
            new = decoder.decode(raw, not raw)
            bad += new.count("\ufffd") - (tail + raw).count(b"\xef\xbf\xbd")  # but those that stand in the file
            if first and bad > BAD_SHARE * max(1, len(raw)):
                raise DataError(
                    f"{path}: expected UTF-8 text, got something else ({raw[:8].hex(' ')} ...)",
                    hint="convert it, or leave it out",
                )
            text, tail, first = text + new, raw[-2:], False
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


def _cut(text: str) -> int:
    """Where to cut: before the last whitespace that follows a letter or digit. No piece of the pattern spans that
    place or looks beyond it, so both parts tokenise as the whole does. 0: nowhere yet."""
    for start in (max(0, len(text) - 4096), 0):
        cut = 0
        for found in BOUNDARY.finditer(text, start):
            cut = found.end()
        if cut:
            return cut
    return LONGEST_BLOCK if len(text) > LONGEST_BLOCK else 0


def tokenise(
    documents: Sequence[Document], tokenizer: Tokenizer, progress: Progress | None = None
) -> Iterator[NDArray[np.int32]]:
    """The documents' tokens in order, in chunks (n,) int32; each document starts with the end-of-text token."""
    start = np.array([] if tokenizer.eot is None else [tokenizer.eot], np.int32)
    total, done = sum(document.size for document in documents), 0

    def pieces() -> Iterator[tuple[str | None, Document]]:
        for document in documents:
            yield None, document
            for block in document.blocks():
                yield block, document

    def encode(piece: tuple[str | None, Document]) -> tuple[NDArray[np.int32], int, Document]:
        text, document = piece
        return (start, 0, document) if text is None else (tokenizer.encode(text), len(text), document)

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
