"""New files and folders that a command line names: written beside their place, whole or not at all, never over a file.

Runs have their own way (run.py, checkpoint.py); this one is for imports, exports and reports.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core import atomic_files, files
from core.errors import CheckpointError, UsageError


def new_path(out: Path) -> Path:
    """`out`, unless something is there, a dangling link included; the folders above it are made. UsageError."""
    _refuse_dash(out, "the path")
    try:
        if out.exists() or out.is_symlink():
            raise UsageError(f"{out} exists already; nothing was changed", hint="name another place, or move it away")
        out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(out)!r:.200} cannot be made: {error}", hint="name another place") from None
    return out


def target_file(path: Path, option: str) -> Path:
    """A file that a command may write in the place of an older one. UsageError, naming the option, for a folder, a
    pipe, a device or a link that leads nowhere."""
    _refuse_dash(path, option)
    if os.path.lexists(path) and not path.is_file():
        raise UsageError(f"{option} {path}: a folder, pipe, device or dangling link is there", hint="name a file")
    if not path.parent.is_dir():
        raise UsageError(
            f"{option} {path}: cannot be written: {path.parent} is not a folder", hint="make the folder first"
        )
    return path


def _refuse_dash(path: Path, option: str) -> None:
    """UsageError for "-", which stands for standard output elsewhere."""
    if str(path) == "-":
        raise UsageError(f"{option} -: expected a file's name; standard output is not written to", hint="name a file")


def write_target(path: Path, data: bytes, option: str) -> None:
    """Write `target_file`, whole or not at all. UsageError where the disk refuses."""
    try:
        atomic_files.replace(target_file(path, option).resolve(), data)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {error.strerror or error}") from None


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary name beside `out`, which is renamed to `out` when the block succeeds.

    Whatever goes wrong, nothing of it stays. CheckpointError when the disk refuses.
    """
    path = out.with_name(f".{out.name}.staged-{os.getpid()}")
    try:
        yield path
        if out.exists():
            raise UsageError(
                f"{out} was made by another program during the write; it is unchanged", hint="name another place"
            )
        files.rename(path, out)
        try:
            files.sync_folder(out.parent)
        except OSError:
            files.rename(out, path)  # it might not be there after a power cut: then it is not there now either
            raise
    except OSError as error:
        raise CheckpointError(
            f"{out}: cannot be written: {error.strerror or error}; the partial file was removed",
            hint="make room, or name another place",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            files.remove_tree(path)
