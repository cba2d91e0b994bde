"""The search of a plugin's sources for a name that it may bring, without an import of it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from core.discovery import Candidate

LARGEST_SOURCE = 1 << 20  # bytes of a file that is searched for a name
MOST_SOURCES = 200  # files of a plugin that are searched


def sources(candidate: Candidate) -> Iterator[Path]:
    """The Python and TOML files of a plugin."""
    if candidate.home is None:
        return
    if candidate.home.is_file():
        yield candidate.home
        return
    files = (p for p in sorted(candidate.home.rglob("*")) if p.suffix in (".py", ".toml"))
    for count, path in enumerate(files):
        if count == MOST_SOURCES:
            return
        yield path


def mentions(candidate: Candidate, name: str) -> bool:
    """Whether a plugin seems to bring `name`: a quoted string in its sources, a hook of it, or a model of that stem."""
    pattern = re.compile(rf"""(["']){re.escape(name)}\1|\bdef {re.escape(name)}\b""")
    for path in sources(candidate):
        if path.suffix == ".toml":
            if path.stem == name:
                return True
        elif name in (text := _text(path)) and pattern.search(text):
            return True
    return False


@functools.lru_cache(maxsize=512)
def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace") if path.stat().st_size <= LARGEST_SOURCE else ""
    except OSError:
        return ""
