"""Text files as documents: one each, or several with a separator between them (`Reading`). Their text, in blocks:
core.data.text_blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from core.data.digests import file_sha256
from core.data.documents import WHOLE, Document, Reading
from core.errors import DataError
from core.outside import reads

TABLES = (".csv", ".tsv")


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
            return Document(str(path), size, f"{digest} {cut}", lambda: _texts(path, cut, notes), each=True)
        return Document(str(path), size, digest, lambda: _blocks(path, notes))


def _blocks(path: Path, notes: list[str]) -> Iterator[str]:
    from core.data.text_blocks import read_blocks  # of a text without tokens in the cache

    return read_blocks(path, notes)


def _texts(path: Path, separator: str, notes: list[str]) -> Iterator[str]:
    from core.data.text_blocks import texts_between

    return texts_between(path, separator, notes)


def size_and_digest(path: Path) -> tuple[int, str]:
    """A file's bytes, and the sha256 of its contents. DataError for a path without a file; OSError passes."""
    if not path.is_file():
        raise DataError(
            f"{path}: expected a file, got something else (a pipe, a device, a dangling link)", hint="leave it out"
        )
    return path.stat().st_size, file_sha256(path)


def folder_files(folder: Path) -> list[Path]:
    """All files below a folder in the order of their names, hidden ones left out; each folder once, links followed."""
    paths: list[Path] = []
    seen = {os.path.realpath(folder)}
    for root, folders, files in os.walk(folder, followlinks=True):
        visible = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(root, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                visible.append(name)
        folders[:] = visible
        paths += [Path(root) / name for name in files if not name.startswith(".")]
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())
