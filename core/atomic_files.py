"""Files and folders replaced whole: written beside their place, then renamed.

A reader sees the old contents or the new ones. The system decides when they reach the disk, which suits caches.
Files that must survive a power cut are written by core.files.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from core import files

STAGED = ".staged-"
STALE = 24 * 3600.0  # seconds after which a staged file or folder counts as left by a killed process


def staged_name(path: Path) -> Path:
    """A name beside `path` that no other process uses; a file made there gets the usual rights, unlike tempfile's."""
    return path.with_name(f"{STAGED}{os.getpid()}-{secrets.token_hex(6)}")


def replace(path: Path, data: bytes) -> None:
    """`path` holds its old contents or all of `data`, never a part; not synced. Makes missing folders. Raises OSError,
    and leaves no staged file then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = staged_name(path)
    try:
        staged.write_bytes(data)
        files.put(staged, path)
    except BaseException:  # Ctrl-C too: nothing half-written stays
        with contextlib.suppress(OSError):
            staged.unlink()
        raise


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target` when the block ends well, and is removed when it does not.

    Two processes may do this at once: the first to finish wins, the second's equal work is dropped.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target.parent)
    staged = staged_name(target)
    staged.mkdir()
    try:
        yield staged
        try:
            files.put(staged, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    """Remove the staged files and folders of killed processes."""
    for left in folder.glob(f"{STAGED}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
