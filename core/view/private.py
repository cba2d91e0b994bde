"""Removes absolute paths from places and messages: a page names no user, no home folder, no checkout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import core

ABSOLUTE = re.compile(r"""(?<![\w.:/<~-])(?:/[^\s/:;,'"()<>]+){2,}""")  # a path of two names at least


def short_place(place: str) -> str:
    """`ops/gelu.py:12` for a file of corelm, a path below the current folder as it is, the name alone for any other."""
    file, colon, line = place.rpartition(":")
    path = Path(file if colon and line.isdigit() else place)
    tail = f":{line}" if colon and line.isdigit() else ""
    for root in (*map(Path, core.__path__), Path.cwd()):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix() + tail
    return (path.name if path.is_absolute() else path.as_posix()) + tail


def short_text(text: str, folders: Iterable[Path] = ()) -> str:
    """A message with each absolute path as `short_place` has it. folders: left out where they stand, blanks and all."""
    for folder in (*folders, Path.cwd(), Path.home()):
        if folder != Path(folder.anchor):
            text = text.replace(f"{folder}/", "")
    return ABSOLUTE.sub(lambda match: short_place(match[0]), text)
