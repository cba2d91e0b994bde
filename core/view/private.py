"""Places of files without folders of this machine: a page names no user, no home, no checkout."""

from __future__ import annotations

from pathlib import Path

import core


def short_place(place: str) -> str:
    """`ops/gelu.py:12` for a file of corelm, a path below the current folder as it is, the name alone for any other."""
    file, colon, line = place.rpartition(":")
    path = Path(file if colon and line.isdigit() else place)
    tail = f":{line}" if colon and line.isdigit() else ""
    for root in (*map(Path, core.__path__), Path.cwd()):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix() + tail
    return (path.name if path.is_absolute() else path.as_posix()) + tail
