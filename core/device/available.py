"""Memory of the machine that this process may still take, so that too large a plan is refused instead of ended by the
system's out-of-memory killer, which says nothing."""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import OutOfMemory

CGROUPS = (  # folder, limit and use of a container: version 2, version 1
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
COUNTED = ("MemAvailable", "SwapFree")  # of /proc/meminfo
CACHE = ("inactive_file", "total_inactive_file")  # of memory.stat: the system takes it back when memory is short


LARGE = 64 << 20  # bytes of a block that is compared with what there is

_given = 0  # bytes of large blocks that are in use
_base = 0  # bytes that were resident before the first of them


def available() -> int | None:
    """Bytes that could be touched now: of the machine, the container and `ulimit -v`, the least, without those of large
    blocks that were given and not touched so far. None where the system says nothing, as on Windows."""
    untouched = max(0, _given - max(0, resident() - _base)) if _given else 0
    limits = [bytes_ - untouched for bytes_ in (_machine(), *map(_container, CGROUPS)) if bytes_ is not None]
    limit = _limit()
    return min([*limits, limit] if limit is not None else limits, default=None)


def zeros(nbytes: int, hint: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An array of bytes, zero, whose pages come when they are first touched. DeviceError, with what was asked for and
    what there is, where the machine has not as much."""
    global _given, _base
    free = available() if nbytes >= LARGE else None
    try:
        if free is not None and nbytes > free:
            raise MemoryError
        untouched = np.zeros(nbytes, np.uint8)
    except (MemoryError, ValueError):  # the latter: more than an array can have
        asked = f"{nbytes:,} bytes asked for, {nbytes / 2**30:,.1f} GiB"
        raise OutOfMemory(f"out of memory: {asked}{described()}", hint=hint) from None
    if nbytes >= LARGE:
        _base = _base or resident()
        _given += nbytes
        weakref.finalize(untouched, _returned, nbytes)
    return untouched


def described() -> str:
    """The available bytes, to append to a request; "" where the system does not report them."""
    free = available()
    return "" if free is None else f", and {max(0, free) / 2**30:,.1f} GiB are free"


def _returned(nbytes: int) -> None:
    global _given
    _given -= nbytes


def resident() -> int:
    """Bytes of memory that this process holds, 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _machine() -> int | None:
    meminfo = _table("/proc/meminfo")
    if COUNTED[0] in meminfo:
        return sum(meminfo.get(name, 0) for name in COUNTED) << 10
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _container(names: tuple[str, str, str]) -> int | None:
    folder, limit, used = names
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: without a limit
        most, now = (int(Path(folder, name).read_text("ascii")) for name in (limit, used))
        cache = max((_table(f"{folder}/memory.stat").get(name, 0) for name in CACHE), default=0)
        return max(0, most - now + cache)
    return None


def _table(path: str) -> dict[str, int]:
    """Lines of "name: number ..." or "name number"; {} where there is no such file."""
    entries = {}
    with contextlib.suppress(OSError):
        for line in Path(path).read_text("ascii", "replace").splitlines():
            name, *rest = line.replace(":", " ").split()
            if rest and rest[0].isdecimal():
                entries[name] = int(rest[0])
    return entries


def _limit() -> int | None:
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
            return max(0, limit - used)
    return None
