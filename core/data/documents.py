"""Documents: texts with a name and a digest, read in blocks; and their layout in files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Progress = Callable[[int, int, str], None]  # done, total, activity


@dataclass(frozen=True)
class Document:
    """A text with a name. `blocks()` reads it from the start each time; `digest` is the sha256 of its bytes, and of how
    they are read. each: every block is a document, not a part of one."""

    name: str
    size: int  # bytes
    digest: str
    blocks: Callable[[], Iterator[str]]
    each: bool = False


@dataclass(frozen=True)
class Reading:
    """The layout of documents in files. field: of each record of a .jsonl or .parquet, the one with the text; messages:
    the one with a conversation, where there is one. separator: the text between the documents of a text file; "": a
    file is one document."""

    field: str = ""
    separator: str = ""
    messages: str = ""


WHOLE = Reading()  # a file is a document


def corpus_digest(documents: Sequence[Document]) -> str:
    """One hash of all documents in their order."""
    return hashlib.sha256("\n".join(d.digest for d in documents).encode()).hexdigest()
