"""LATEST and BEST: two small files in a run's folder, each with the name of a checkpoint in `checkpoints` beside it.

LATEST names the newest checkpoint, BEST the one with the best validation loss. Both are replaced after their checkpoint
is whole, and before an older one is removed: whenever a process dies, the checkpoint that a pointer names exists. The
folders have the last word: a pointer may be stale, or lost, and `--resume` repairs it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from core import files
from core.outside import read_whole

CHECKPOINTS = "checkpoints"  # the folder beside them
LATEST, BEST = "LATEST", "BEST"
POINTERS = (LATEST, BEST)
LONGEST = 1 << 10  # bytes of one


def point(run: Path, pointer: str, name: str | None) -> None:
    """Make a run's `pointer` name a checkpoint; None: remove it. OSError passes."""
    if name is not None:
        files.replace_durably(run / pointer, f"{name}\n".encode())
    else:
        (run / pointer).unlink(missing_ok=True)


def said(run: Path, pointer: str) -> str:
    """The name that the pointer holds; "" where it is absent or unreadable; no link is followed."""
    with contextlib.suppress(OSError):
        return read_whole(run / pointer, LONGEST, follow=False).decode("utf-8", "replace").strip()
    return ""


def repair(run: Path, pointer: str, name: str | None) -> str | None:
    """Make the pointer name `name` (None: be absent). A line on the change; None without one."""
    before = said(run, pointer)
    if before == (name or "") and os.path.lexists(run / pointer) == (name is not None):
        return None
    point(run, pointer, name)
    return f"{pointer} named {before or 'nothing'}; now it names {name or 'nothing, and is gone'}"
