"""Blocks of host memory, within what this process may still take: too large a plan is refused, instead of ended by the
system's out-of-memory killer, which says nothing."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from core.errors import OutOfMemory
from core.words import human

LARGE = 64 << 20  # bytes of a block that is compared with the free memory

_used = 0  # bytes of large blocks that are in use
_base = 0  # bytes that were resident before the first of them


def available() -> int | None:
    """Bytes that could be touched now: of the machine, the container and `ulimit -v`, the least, without those of large
    blocks that are untouched so far. None where the system says nothing, as on Windows."""
    from core.device.system_memory import resident, unused, within_limit  # not needed by small runs

    untouched = max(0, _used - max(0, (resident() or 0) - _base)) if _used else 0
    limits = [nbytes - untouched for nbytes in unused()]
    limit = within_limit()
    return min([*limits, limit] if limit is not None else limits, default=None)


def zeros(nbytes: int, hint: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(nbytes,) uint8, zero, whose pages come when they are first touched. Raises OutOfMemory, with the request and
    the free memory, where the machine has less."""
    large = nbytes >= LARGE
    free = available() if large else None
    try:
        if free is not None and nbytes > free:
            raise MemoryError
        untouched = np.zeros(nbytes, np.uint8)
    except (MemoryError, ValueError):  # the latter: more than an array can have
        raise OutOfMemory(
            f"out of memory: {nbytes:,} bytes ({human(nbytes)}) requested{described()}", hint=hint
        ) from None
    if large:
        _account(untouched)
    return untouched


def described() -> str:
    """The available bytes, to append to a request; "" where the system does not report them."""
    free = available()
    return "" if free is None else f", {human(max(0, free))} free"


def _account(block: np.ndarray[Any, Any]) -> None:
    """Count a large block as used until it is freed."""
    from core.device.system_memory import resident

    global _used, _base
    _base = _base or resident() or 0
    _used += block.nbytes
    weakref.finalize(block, _returned, block.nbytes)


def _returned(nbytes: int) -> None:
    global _used
    _used -= nbytes
