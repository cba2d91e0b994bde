"""Cached folders of data, and digests of files that are remembered by their time stamps."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from core.cache import cache_folder, read_json, staged_name, try_write

STALE_SECONDS = 24 * 3600  # a staging folder older than this was left by a kill
FRESH_NS = 2_000_000_000  # a file changed this recently may change again without a new time stamp


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target` when the block ends well, and is removed when it does not.

    Two processes may do this at once: the first to finish wins, the other's work is dropped (it is the same).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    staged = staged_name(target)
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


def _sweep(folder: Path) -> None:
    """Remove what a killed process left behind."""
    for left in folder.glob(".staged-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
