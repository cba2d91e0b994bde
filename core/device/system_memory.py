"""Memory that the operating system reports: of the machine, of a container, and the limit of this process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from core.device.process_memory import pages

CGROUPS = (  # folder, limit and use of a container: version 2, version 1
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
COUNTED = ("MemAvailable", "SwapFree")  # of /proc/meminfo
CACHE = ("inactive_file", "total_inactive_file")  # of memory.stat: the system takes it back when memory is short


def unused() -> list[int]:
    """Bytes that are in use by no process: of the machine, and of each container's limit that holds here."""
    return [nbytes for nbytes in (_machine(), *map(_container, CGROUPS)) if nbytes is not None]


def within_limit() -> int | None:
    """Bytes of addresses that `ulimit -v` leaves to this process; None without a limit."""
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return max(0, limit - pages()[0])
    return None


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
