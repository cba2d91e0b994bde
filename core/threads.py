"""The number of threads that corelm may use on this machine."""

from __future__ import annotations

import os

from core import variables

THREADS = "CORELM_THREADS"
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # settings of batch systems and users


def cores() -> int:
    """The cores that this process may use: CORELM_THREADS, or its CPU affinity. Raises UsageError for no number."""
    if (threads := variables.count(THREADS)) is not None:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers() -> int:
    """Threads of the cpu device: CORELM_THREADS, or the cores, or fewer by a variable of LIBRARIES."""
    if variables.count(THREADS) is not None:
        return cores()
    values = [os.environ.get(name, "").partition(",")[0].strip() for name in LIBRARIES]
    limits = [int(value) for value in values if value.isascii() and value.isdecimal() and len(value) < 20]
    return min([cores(), *(limit for limit in limits if limit > 0)])
