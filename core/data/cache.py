"""The cache folder, and writing into it so that a half-written entry is never seen.

A cache only saves time: whatever is missing is made again, and where the folder cannot be written everything still
works, more slowly. Nothing here decides what is cached; no other program's files are ever touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STALE_SECONDS = 24 * 3600  # a staging folder older than this was left by a kill
FRESH_NS = 2_000_000_000  # a file changed this recently may change again without a new time stamp


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
    staged = _staged(path)
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


def read_json(path: Path) -> Any:
    """The JSON in a cache entry, or None when it is absent or damaged: it is then made again."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target` when the block ends well, and is removed when it does not.

    Two processes may do this at once: the first to finish wins, the other's work is dropped (it is the same).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    staged = _staged(target)
    staged.mkdir()
    try:
        yield staged
        try:
            os.replace(staged, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def contents_sha256(path: Path) -> str:
    """The sha256 of a file's contents, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's contents, remembered by its path, size and time stamp."""
    stat = path.stat()
    mark = [stat.st_size, stat.st_mtime_ns]
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    entry = cache_folder() / "digests" / f"{name}.json"
    known = read_json(entry)
    if isinstance(known, dict) and known.get("mark") == mark:
        return str(known["sha256"])
    digest = contents_sha256(path)
    if time.time_ns() - stat.st_mtime_ns > FRESH_NS:
        try_write(entry, json.dumps({"mark": mark, "sha256": digest}).encode())
    return digest


def _staged(path: Path) -> Path:
    """A name beside `path` that nobody else uses; what lies there gets the usual rights, unlike tempfile's."""
    return path.with_name(f".staged-{os.getpid()}-{secrets.token_hex(6)}")


def _sweep(folder: Path) -> None:
    """Remove what a killed process left behind."""
    for left in folder.glob(".staged-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
