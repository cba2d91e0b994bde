"""Memory that this process holds, as the operating system reports it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def resident() -> int | None:
    """Bytes of memory that this process holds, on macOS the most so far; None where the system has no such figure."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return pages()[1]
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def address_space() -> int | None:
    """Bytes of this process's address space; None where the system has no such figure."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return pages()[0]
    return None


def pages() -> list[int]:
    """Bytes of this process: its address space, those in memory, and those that it shares. OSError where the system
    does not publish them."""
    size = os.sysconf("SC_PAGE_SIZE")
    return [int(pages) * size for pages in Path("/proc/self/statm").read_text("ascii").split()[:3]]
