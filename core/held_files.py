"""Files that stay open, so that their contents outlive their names."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import weakref
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from core.outside import named, open_file, read_rest, read_values


class Held:
    """A regular file that is open, so that its contents can be read after its name is removed. No link is followed.

    It is let go with the last reference to it, or by `release`: it is opened again for each read after that. OSError as
    it comes. Windows removes no file that is open, so that nothing is held there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BufferedReader | None = open_file(path, follow=False)
        self._lock = threading.Lock()  # for the position in the file
        self._close = weakref.finalize(self, self._file.close)
        if os.name == "nt":
            self.release()

    def release(self) -> None:
        self._file = None
        self._close()

    @contextlib.contextmanager
    def opened(self) -> Iterator[BufferedReader]:
        """The file at its first byte, for one reader at a time."""
        with named(self.path):
            if self._file is None:
                with open_file(self.path, follow=False) as file:
                    yield file
            else:
                with self._lock:
                    self._file.seek(0)
                    yield self._file

    def sha256(self) -> str:
        with self.opened() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self) -> bytes:
        """All of a small file."""
        with self.opened() as file:
            return read_rest(file)

    def values(self, dtype: Any, start: int, shape: tuple[int, ...]) -> Any:
        """A NumPy array from byte `start` on, as `outside.read_array`."""
        with self.opened() as file:
            return read_values(file, dtype, start, shape)
