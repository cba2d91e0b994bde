"""The cache folder, and writing one file into it so that a half-written entry is never seen.

A cache only saves time: whatever is missing or damaged is made again, and where the folder cannot be written
everything still works, more slowly. Nothing here decides what is cached; no other program's files are ever touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from core.outside import parse_json, read_whole


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


def write_atomically(path: Path, data: bytes) -> None:
    """`path` holds its old contents or all of `data`, never a part. Makes missing folders. OSError as it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = staged_name(path)
    try:
        staged.write_bytes(data)
        os.replace(staged, path)
    except BaseException:  # Ctrl-C too: nothing half-written stays
        with contextlib.suppress(OSError):
            staged.unlink()
        raise


def try_write(path: Path, data: bytes) -> bool:
    """`write_atomically`, or False where the file system refuses."""
    try:
        write_atomically(path, data)
    except OSError:
        return False
    return True


def keep_newest(folder: Path, most: int) -> None:
    """Remove the entries of a cache folder that were written first, a quarter of `most` at a time, before there are
    more than `most`."""
    with contextlib.suppress(OSError):
        entries = list(os.scandir(folder))
        if len(entries) < most:
            return
        for entry in sorted(entries, key=lambda e: e.stat().st_mtime)[: most // 4]:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def read_json(path: Path) -> Any:
    """The JSON in a cache entry, or None when it is absent or damaged: it is then made again."""
    try:
        return parse_json(read_whole(path))
    except (OSError, ValueError):
        return None


def staged_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses; what lies there gets the usual rights, unlike tempfile's."""
    return path.with_name(f".staged-{os.getpid()}-{secrets.token_hex(6)}")
