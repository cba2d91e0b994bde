"""The file-system calls of a save, each with a name, so that a test can make any of them fail.

Nothing else in the project writes a file that must survive a kill. `POINT` is called before each of these calls
with its name and path; a test puts a function there that raises or kills, and looks at what is left on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from core.outside import named, open_file


def _nothing(call: str, path: Path) -> None:
    """Between tests, no call fails on purpose."""


POINT: Callable[[str, Path], None] = _nothing

TEMPORARY = ".tmp"  # `.LATEST.tmp` is what becomes LATEST


def create(path: Path) -> BinaryIO:
    """A new file, unbuffered: what `write` was given is with the system when it returns."""
    POINT("create", path)
    return path.open("wb", buffering=0)


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


def unlink(path: Path) -> None:
    POINT("unlink", path)
    path.unlink()


def remove_folder(path: Path) -> None:
    POINT("remove_folder", path)
    path.rmdir()


def remove_tree(path: Path) -> None:
    """A folder and what is in it; of a symbolic link, the link alone: what it leads to is somebody else's."""
    if path.is_symlink() or not path.is_dir():
        unlink(path)
        return
    for inner in path.iterdir():
        remove_tree(inner)
    remove_folder(path)


def free_bytes(path: Path) -> int:
    """What the disk has left for us where `path` is, or will be: the nearest folder above it counts."""
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
    """`path` holds either its old contents or all of the new ones, whatever happens in between."""
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
    """Remove what a killed `replace_durably` left in a folder that nobody else writes to. Returns the names."""
    left = [path for path in folder.glob(f".*{TEMPORARY}") if not path.is_dir()]
    for path in left:
        unlink(path)
    return [path.name for path in left]


def sha256(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value: Any) -> bytes:
    """Readable JSON. Floats read back exactly; one that is not finite is refused, as JSON has none."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
