"""Files replaced whole: written beside their place, then renamed. The only module that renames.

Two ways: `replace` and `staged_folder` are atomic (a reader sees the old contents or the new ones) and leave the time
of the write to the disk, which suits caches. `replace_durably` also syncs file and folder, for files that must survive
a power cut: checkpoints and a run's records. Each call of the durable way has a name; `POINT` is called before it with
that name and the path, and a test puts a function there that raises or kills, and examines the disk afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from core.outside import named, not_a_link


def _nothing(call: str, path: Path) -> None:
    """Between tests, no call fails on purpose."""


POINT: Callable[[str, Path], None] = _nothing

TEMPORARY = ".tmp"  # `.LATEST.tmp` is what becomes LATEST
STAGED = ".staged-"
STALE = 24 * 3600.0  # seconds after which a staged file or folder counts as left by a killed process


# --- atomic ----------------------------------------------------------------------------------------------------------


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
        os.replace(staged, path)
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
            os.replace(staged, target)
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


# --- durable ---------------------------------------------------------------------------------------------------------


def create(path: Path) -> BinaryIO:
    """A new file, unbuffered: what `write` was given is with the system when it returns. No link is followed."""
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
