"""Files replaced whole and durably: written beside their place, synced, then renamed. For files that must survive a
power cut: checkpoints and a run's records. Others, such as caches: core.atomic_files.

Each call has a name; `POINT` is called before it with that name and the path, and a test puts a function there that
raises or kills, and examines the disk afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from core.outside import named, not_a_link


def _nothing(call: str, path: Path) -> None:
    """Between tests, no call fails on purpose."""


POINT: Callable[[str, Path], None] = _nothing

TEMPORARY = ".tmp"  # `.LATEST.tmp` becomes LATEST


def create(path: Path) -> BinaryIO:
    """A new file, unbuffered: the system has all data of `write` when it returns. No link is followed."""
    POINT("create", path)
    return open(path, "wb", buffering=0, opener=not_a_link)


def write(file: BinaryIO, path: Path, data: bytes | memoryview) -> None:
    """All of `data`: an unbuffered write may take less than it is given, and a disk may be full in between."""
    POINT("write", path)
    rest = memoryview(data)
    with named(path):
        while rest.nbytes:
            rest = rest[file.write(rest) :]


def sync(file: BinaryIO, path: Path) -> None:
    """Bring a file's contents to the disk, so that a rename cannot overtake them."""
    POINT("sync", path)
    with named(path):
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to the disk. Windows has no such call and needs none for a rename."""
    POINT("sync_folder", path)
    if os.name == "nt":
        return
    with named(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(path: Path) -> None:
    POINT("make_folder", path)
    path.mkdir()


def rename(source: Path, target: Path) -> None:
    POINT("rename", target)
    os.replace(source, target)


def put(source: Path, target: Path) -> None:
    """`rename` without a name for tests, for files that need not survive a power cut."""
    os.replace(source, target)


def unlink(path: Path) -> None:
    POINT("unlink", path)
    path.unlink()


def remove_folder(path: Path) -> None:
    POINT("remove_folder", path)
    path.rmdir()


def remove_tree(path: Path) -> None:
    """A folder and its contents; of a symbolic link, the link alone, never its target."""
    if path.is_symlink() or not path.is_dir():
        unlink(path)
        return
    for inner in path.iterdir():
        remove_tree(inner)
    remove_folder(path)


def free_bytes(path: Path) -> int:
    """Bytes that the disk of `path` has left for this user; of a path to be made, the nearest folder above it
    counts."""
    return shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if p.exists())).free


def largest_file() -> int | None:
    """Bytes that this process may write into one file (RLIMIT_FSIZE, `ulimit -f`), None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def write_durably(path: Path, data: bytes) -> str:
    """A small new file, synced. Returns its sha256."""
    with named(path), create(path) as file:
        write(file, path, data)
        sync(file, path)
    return hashlib.sha256(data).hexdigest()


def replace_durably(path: Path, data: bytes) -> None:
    """Write `path` so that it holds either its old contents or all of the new ones, also after a crash in between."""
    staged = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        write_durably(staged, data)
        rename(staged, path)
    except OSError:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    sync_folder(path.parent)


def sweep(folder: Path) -> list[str]:
    """Remove half-written files of a killed process from a folder with one writer. Returns the names."""
    left = list(folder.glob(f".*{TEMPORARY}"))
    for path in left:
        remove_tree(path)
    return [path.name for path in left]


def settled(value: Any) -> Any:
    """Plain data whose numbers that JSON has no form for are text: "nan", "inf" and "-inf", which Python's float()
    takes."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: settled(held) for key, held in value.items()}
    return [settled(held) for held in value] if isinstance(value, list | tuple) else value


def to_json(value: Any) -> bytes:
    """Readable JSON. Floats read back exactly; one that is not finite is refused, as JSON has none."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
