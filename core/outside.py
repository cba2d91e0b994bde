"""Files from outside, read whole and with bounds: configs, models, sidecars, tokenizers. Their authors are not trusted.

A path to no regular file (a pipe would hang, a device never ends), or to a file far too large, is an OSError before
anything is read; JSON that nests too deeply or has numbers of no sane size is a ValueError. The caller checks the
meaning of the contents.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

if TYPE_CHECKING:
    import numpy as np

LINK = "a symbolic link, which is not followed here"
PART = 1 << 24  # bytes that are read at a time
LONGEST_LOG = 1 << 31  # bytes of a run's metrics: eight million steps
MOST = 64 << 20  # bytes: the largest that we know, a vocabulary of 250,000 tokens as JSON, has a quarter of it

WAYS_OUT = {  # errno -> remedy
    errno.EACCES: "check its rights",
    errno.EPERM: "check its rights",
    errno.EIO: "the disk reports errors: look after it, or use another one",
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "your quota on that disk is used up: make room",
    errno.EFBIG: "a file may not become so large here: see `ulimit -f`",
    errno.EROFS: "the disk is mounted read-only: use another one",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine: end other programs",
    errno.ENOENT: "check the path, or put it back",
    errno.ELOOP: "put the file or folder itself in the link's place",
    errno.ENOMEM: "end other programs, or raise `ulimit -v`",
    errno.EAGAIN: "end other programs, or raise `ulimit -u`",
}


def way_out(error: OSError) -> str:
    """The remedy for an error of the operating system, as a hint."""
    return WAYS_OUT.get(error.errno or 0, "check the path and its disk")


@contextlib.contextmanager
def reads(kind: Callable[..., Exception], path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError of the block as an error of `kind`, a CoreError: the file, `path` where the system names none, why it
    cannot be read, and the remedy."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str | os.PathLike) else path
        raise kind(f"{where}: cannot be read: {error.strerror or error}", hint=way_out(error)) from None


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError of the block has a file's name: an error of reading, writing or syncing an open file has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None or isinstance(error.filename, int):
            error.filename = os.fspath(path)
        raise


def not_a_link(path: str, flags: int) -> int:
    """An opener that follows no symbolic link: a run's folder from elsewhere must lead to none of our files."""
    if os.path.islink(path):
        raise OSError(errno.ELOOP, LINK, path)
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def open_file(path: str | os.PathLike[str], follow: bool = True) -> BufferedReader:
    """A regular file, opened to read bytes. OSError, with a `strerror`, for anything else: a pipe would hang.

    follow: whether a symbolic link stands for its target."""
    try:
        status = os.stat(path, follow_symlinks=follow)
    except ValueError:
        raise OSError(errno.EINVAL, "no file can be called so") from None
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, LINK)
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "a folder, expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "a pipe or a device, expected a file")
    return open(path, "rb", opener=None if follow else not_a_link)


def read_whole(path: str | os.PathLike[str], most: int = MOST, follow: bool = True) -> bytes:
    """The contents of a regular file of at most `most` bytes. OSError, with a `strerror`, for anything else."""
    with named(path), open_file(path, follow) as file:
        return read_rest(file, most)


def read_utf8(kind: Callable[..., Exception], path: str | os.PathLike[str], most: int = MOST) -> str:
    """The text of a regular file of at most `most` bytes. An error of `kind`, a CoreError, for anything else."""
    with reads(kind, path):
        raw = read_whole(path, most)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise kind(f"{path}: not UTF-8: {error}", hint="save it as UTF-8") from None


def read_rest(file: BinaryIO, most: int = MOST) -> bytes:
    """The rest of an open file from its position on, at most `most` bytes. OSError for more."""
    parts, left = [], most + 1  # the system's size may not be true, as under /proc
    while left > 0 and (part := file.read(min(left, PART))):  # `read` allocates the whole size at once
        parts.append(part)
        left -= len(part)
    if not left:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes")
    return b"".join(parts)


def read_array(path: str | os.PathLike[str], dtype: Any, start: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A NumPy array of `shape`, read from byte `start`. OSError, with a `strerror`, where the file is shorter: a map
    of it would end the process."""
    with named(path), open_file(path) as file:
        return read_values(file, dtype, start, shape)


def read_values(file: BinaryIO, dtype: Any, start: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """`read_array` of an open file."""
    import numpy as np  # not for `core --help`

    file.seek(start)
    array = np.fromfile(file, dtype, math.prod(shape))
    if array.size < math.prod(shape):
        raise OSError(errno.ENODATA, f"the file ends within {math.prod(shape):,} values that start at byte {start:,}")
    return array.reshape(shape)


def parse_json(text: str | bytes, unique: bool = False) -> Any:
    """JSON of finite numbers. ValueError for anything else: nesting without end and numbers beyond f64 included.

    unique: a key that a table has twice is a ValueError too; else the last one counts.
    """
    try:
        pairs = _unique if unique else None
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f'"{twice:.100}" occurs twice')
    return table


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large")
    return number
