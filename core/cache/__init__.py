"""The cache folder: its place and its entries. Writing them, within a bound on its size: core.cache.writing.

A cache only saves time: a missing or damaged entry is made again, and without a writable folder every command still
works, more slowly. This module does not decide which results are cached, and never touches the files of other
programs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from core.outside import parse_json, read_whole

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HOUR = 3600.0
USED = ".used"  # in an entry that is a folder: locked by those who use it
_held: dict[int, int] = {}  # inode -> descriptor that locks it


def cache_folder() -> Path:
    """CORELM_CACHE, else the platform's place for caches. The folder need not exist."""
    named = os.environ.get("CORELM_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "corelm" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "corelm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corelm"


def read_json(path: Path) -> Any:
    """The JSON in a cache entry, or None when it is absent or damaged: it is then made again."""
    try:
        return parse_json(read_whole(path))
    except (OSError, ValueError):
        return None


def used(path: Path) -> None:
    """Note that an entry was used, once an hour: the least recently used entries are swept first."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > HOUR:
            os.utime(path)


def hold(folder: Path) -> bool:
    """Keep an entry that is a folder from being swept until this process ends. False where there is none."""
    if fcntl is None:
        return folder.is_dir()
    try:
        mark = os.open(folder / USED, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:  # gone; or on a disk that is read-only, where nothing is swept either
        return folder.is_dir()
    fcntl.flock(mark, fcntl.LOCK_SH)
    number = os.fstat(mark).st_ino
    with contextlib.suppress(OSError):
        if os.stat(folder / USED).st_ino == number:
            os.utime(mark)
            os.close(_held.pop(number)) if number in _held else None
            _held[number] = mark
            return True
    os.close(mark)  # swept between the two calls
    return False
