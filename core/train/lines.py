"""Append-only files of a run: metrics, samples, the log.

A full disk must neither end a run because of them nor lose a line: lines that the disk refuses are kept in memory, and
written first the next time.
"""

from __future__ import annotations

import os
from pathlib import Path

from core import files
from core.outside import named, not_a_link


class Lines:
    """An open file. `refused` is the reason why the disk did not take the last lines; "" when it did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused = ""
        self._kept = bytearray()  # not written yet
        with named(path):
            self._file = open(path, "ab", buffering=0, opener=not_a_link)  # noqa: SIM115

    def append(self, text: str) -> None:
        """One write where the disk takes it, so that a kill leaves at most the last line incomplete."""
        self._kept += text.encode("utf-8", "backslashreplace")
        try:
            while self._kept:
                files.POINT("append", self.path)
                del self._kept[: self._file.write(self._kept)]
            self.refused = ""
        except OSError as error:
            self.refused = error.strerror or str(error)

    @property
    def missing(self) -> int:
        """The number of lines that the disk has not taken."""
        return self._kept.count(b"\n")

    def cut(self, nbytes: int) -> None:
        """Drop all but the first `nbytes` bytes, durably. Raises OSError."""
        with named(self.path):
            files.POINT("cut", self.path)
            self._file.truncate(nbytes)
            os.fsync(self._file.fileno())

    def sync(self) -> None:
        """Bring them to the disk. Raises OSError."""
        with named(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """After one more try."""
        self.append("")
        self._file.close()
