"""Cached folders of data: staged, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from core.cache import staged_name

STALE_SECONDS = 24 * 3600  # a staging folder older than this was left by a kill


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


def _sweep(folder: Path) -> None:
    """Remove what a killed process left behind."""
    for left in folder.glob(".staged-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
