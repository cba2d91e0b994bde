"""Writing to the cache: entries replaced whole, and the bound on its size.

The folders of SWEPT are bounded by bytes, entries and age: a process sweeps them now and then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core import atomic_files, files, variables
from core.cache import HOUR, USED, cache_folder, fcntl

SWEPT = ("kernels", "machine", "digests", "builtin", "tokenizers/bpe", "tokens")  # caches that other files can rebuild
LIMIT = 65_536  # MiB of all of it, without CORELM_CACHE_LIMIT
MOST_ENTRIES = 20_000
UNUSED = 180 * 24 * HOUR  # seconds


@dataclass(frozen=True)
class CacheEntry:
    """A file or folder of the cache. bytes: on the disk. used: when it was last used, in seconds since the epoch."""

    path: Path
    folder: bool
    bytes: int
    used: float


_written: int | None = None  # bytes since this process swept; None before the first time


def limit() -> int:
    """Bytes that the cache may take: CORELM_CACHE_LIMIT. UsageError for an invalid value."""
    return (variables.count("CORELM_CACHE_LIMIT") or LIMIT) << 20


def wrote(nbytes: int) -> None:
    """Sweep after a process's first entry, and after each sixteenth of the limit."""
    global _written
    _written = None if _written is None else _written + nbytes
    if _written is None or _written > limit() // 16:
        _written = 0
        sweep()


def try_write(path: Path, data: bytes) -> bool:
    """Replace a cache entry whole, or False where the file system refuses. The cache is swept now and then."""
    try:
        atomic_files.replace(path, data)
    except OSError:
        return False
    wrote(len(data))
    return True


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Processes whose blocks name the same file run them one after another: the others reuse the first one's entry in
    the cache. They run at once where the file system refuses a lock."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError:
        yield
        return
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(mark, fcntl.LOCK_EX)
        yield
    finally:
        os.close(mark)


def sweep() -> int:
    """Remove entries unused for UNUSED, files of killed processes, and, beyond the limit, entries unused for
    longest. Only caches that other files can rebuild, never a folder that a process holds. Returns the bytes."""
    now, entries, removed = time.time(), [], 0
    for entry in _entries():
        old = atomic_files.STALE if entry.path.name.startswith(atomic_files.STAGED) else UNUSED
        if now - entry.used > old and _remove(entry):
            removed += entry.bytes
        elif old is not atomic_files.STALE:
            entries.append(entry)
    total, count, most = sum(entry.bytes for entry in entries), len(entries), limit()
    if total <= most and count <= MOST_ENTRIES:
        return removed
    for entry in sorted(entries, key=lambda entry: entry.used):
        if total <= most * 7 // 8 and count <= MOST_ENTRIES * 7 // 8:
            break
        if _remove(entry):
            total, count, removed = total - entry.bytes, count - 1, removed + entry.bytes
    return removed


def _entries() -> Iterator[CacheEntry]:
    for name in SWEPT:
        with contextlib.suppress(OSError), os.scandir(cache_folder() / name) as entries:
            for item in entries:
                with contextlib.suppress(OSError):
                    yield _entry(item)


def _entry(item: os.DirEntry[str]) -> CacheEntry:
    status = item.stat(follow_symlinks=False)
    if not item.is_dir(follow_symlinks=False):
        return CacheEntry(Path(item.path), False, _on_disk(status), status.st_mtime)
    with os.scandir(item.path) as inner:
        inside = [inner_item.stat(follow_symlinks=False) for inner_item in inner]
    latest = max([status.st_mtime, *(s.st_mtime for s in inside)])
    return CacheEntry(Path(item.path), True, sum(map(_on_disk, inside)), latest)


def _on_disk(status: os.stat_result) -> int:
    return 512 * getattr(status, "st_blocks", -(-status.st_size // 512))


def _remove(entry: CacheEntry) -> bool:
    """Whether it is gone. A folder is renamed first, so that none is ever seen half removed."""
    with contextlib.suppress(OSError):
        if not entry.folder:
            entry.path.unlink()
            return True
        if fcntl is None:
            return time.time() - entry.used > atomic_files.STALE and _away(entry.path)
        mark = os.open(entry.path / USED, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _away(entry.path)
        finally:
            os.close(mark)
    return False


def _away(folder: Path) -> bool:
    doomed = atomic_files.staged_name(folder)
    files.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return True
