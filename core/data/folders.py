"""A folder of data: its files, each with its reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.data.text_files import folder_files
from core.data_reader import DataReader
from core.errors import DataError


def files_of(folder: Path, reader_of: Callable[[Path], DataReader | None]) -> list[tuple[Path, DataReader]]:
    """All files of a folder, with their readers. DataError for none, and for files that are to be named themselves."""
    pairs = [(file, reader_of(file)) for file in folder_files(folder)]
    if not pairs:
        raise DataError(f"{folder}: the folder holds no files", hint="name a folder with text files")
    for file, reader in pairs:
        if reader is not None and not reader.in_folders:
            raise DataError(
                f"{folder}: expected a folder of text, it holds {reader.kind} such as {file.name}",
                hint=f'write "{folder}/*{file.suffix}"',
            )
    return [(file, reader) for file, reader in pairs if reader is not None]
