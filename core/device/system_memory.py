"""Memory that the operating system reports: of the machine, of a container, and of this process."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

CGROUPS = (  # folder, limit and use of a container: version 2, version 1
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
COUNTED = ("MemAvailable", "SwapFree")  # of /proc/meminfo
CACHE = ("inactive_file", "total_inactive_file")  # of memory.stat: the system takes it back when memory is short


def unused() -> list[int]:
    """Bytes that are in use by no process: of the machine, and of each container's limit that holds here."""
    return [nbytes for nbytes in (_machine(), *map(_container, CGROUPS)) if nbytes is not None]


def resident() -> int | None:
    """Bytes of memory that this process holds, on macOS the most so far; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return _pages()[1]
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def address_space() -> int | None:
    """Bytes of this process's address space; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return _pages()[0]
    return None


def within_limit() -> int | None:
    """Bytes of addresses that `ulimit -v` leaves to this process; None without a limit."""
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return max(0, limit - _pages()[0])
    return None


def _pages() -> list[int]:
    """Bytes of this process: its address space, those in memory, and those that it shares. OSError where the system
    does not say."""
    size = os.sysconf("SC_PAGE_SIZE")
    return [int(pages) * size for pages in Path("/proc/self/statm").read_text("ascii").split()[:3]]


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
