"""DataReader: turns a name in `[data] train` or `val` into documents or tokens.

A plugin brings one by the hook `core_data`. The parts that readers are made of are public as `core.data`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar


class DataReader(ABC):
    """The base class of a plugin's reader: its facts and its methods.

    name: an identifier; `NAME:REST` in `[data]` picks the reader by name. files: whether its sources are files, so that
    REST is a path or a glob, and `recognise` tests a path without a name; a reader without files is
    also picked by NAME alone. in_folders: whether a folder that is named may hold its files among others. kind: its
    files as a noun in the plural.
    """

    name: ClassVar[str] = ""
    files: ClassVar[bool] = True
    in_folders: ClassVar[bool] = True
    kind: ClassVar[str] = "files"
    origin: str = ""  # the plugin's name and place; set while it is registered

    def recognise(self, path: Path, head: bytes) -> bool:
        """Whether a file, or a folder, is this reader's; head: a file's first 256 bytes, b"" for a folder."""
        return False

    @abstractmethod
    def read(self, source: str, part: str, reading: Any, notes: list[str]) -> Any:
        """The documents or pieces of tokens of one source: a `core.data.Inputs`.

        source: a path, or REST of a reader without files. part: "train" or "val". reading: a `core.data.Reading`, the
        config's `field` and `separator`. `notes` takes sentences for the user. Raises DataError for a damaged
        source; OSError passes.
        """
