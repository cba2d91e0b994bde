"""The number of threads that corelm may use on this machine."""

from __future__ import annotations

import os

from core import variables

THREADS = "CORELM_THREADS"


def cores() -> int:
    """The cores that this process may use: CORELM_THREADS, or its CPU affinity. Raises UsageError for no number."""
    if (threads := variables.count(THREADS)) is not None:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
