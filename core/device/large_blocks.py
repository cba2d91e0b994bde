"""Large blocks of host memory, within the bytes that this process may still take."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from core.device.process_memory import resident
from core.device.system_memory import unused, within_limit
from core.errors import OutOfMemory
from core.words import human

_used = 0  # bytes of large blocks that are in use
_base = 0  # bytes that were resident before the first of them


def available() -> int | None:
    """Bytes that could be touched now: of the machine, the container and `ulimit -v`, the least, without those of large
    blocks that are untouched so far. None where the system has no such figure, as on Windows."""
    untouched = max(0, _used - max(0, (resident() or 0) - _base)) if _used else 0
    limits = [nbytes - untouched for nbytes in unused()]
    limit = within_limit()
    return min([*limits, limit] if limit is not None else limits, default=None)


def large_zeros(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(nbytes,) uint8, zero, counted as used until it is freed. Raises MemoryError where the machine has less, and
    ValueError for more than an array can have."""
    free = available()
    if free is not None and nbytes > free:
        raise MemoryError
    untouched = np.zeros(nbytes, np.uint8)
    _account(untouched)
    return untouched


def out_of_memory(nbytes: int, hint: str) -> OutOfMemory:
    """The error for a block, with the request and the free memory."""
    return OutOfMemory(f"out of memory: {nbytes:,} bytes ({human(nbytes)}) requested{described()}", hint=hint)


def described() -> str:
    """The available bytes, to append to a request; "" where the system does not report them."""
    free = available()
    return "" if free is None else f", {human(max(0, free))} free"


def _account(block: np.ndarray[Any, Any]) -> None:
    """Count a large block as used until it is freed."""
    global _used, _base
    _base = _base or resident() or 0
    _used += block.nbytes
    weakref.finalize(block, _returned, block.nbytes)


def _returned(nbytes: int) -> None:
    global _used
    _used -= nbytes
