"""Checkpoints on another disk: `checkpoints` of a run is a symbolic link to a folder that belongs to the run.

A run's folder may be a stranger's, and retention removes checkpoints. So the link is followed only into an empty
folder, which the run then owns, or into one whose file OWNER has the path of the run.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from core import files
from core.errors import UsageError
from core.outside import read_whole
from core.words import printable

OWNER = "OWNER"
LONGEST_OWNER = 1 << 16  # bytes: longer than any path


def own(link: Path, run: Path) -> None:
    """Make the target of `link` the run's folder, or find that it is. UsageError where it is not; OSError passes."""
    target, ours = link.resolve(), str(run.resolve())
    if not target.is_dir():
        raise UsageError(
            f"{link}: a symbolic link that leads to no folder: {target}",
            hint="make that folder, or remove the link",
        )
    if not any(target.iterdir()):
        files.replace_durably(target / OWNER, os.fsencode(f"{ours}\n"))
    elif (owner := _owner(target)) != ours:
        raise UsageError(
            f"{link}: a symbolic link to {target}, "
            + (f'whose {OWNER} is "{printable(owner)}"' if owner else f"which has no file {OWNER}")
            + "; nothing was changed",
            hint=f"if its checkpoints are this run's: echo {shlex.quote(ours)} > {shlex.quote(str(target / OWNER))}",
        )


def _owner(folder: Path) -> str:
    """The run of a folder of checkpoints; "" where it has no record."""
    if not (folder / OWNER).is_file():
        return ""
    return os.fsdecode(read_whole(folder / OWNER, LONGEST_OWNER, follow=False)).removesuffix("\n")
