"""Blocks of host memory. A request that is too large is refused before the system's out-of-memory killer ends the
process. From LARGE bytes on a block is compared with the free memory: core.device.large_blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGE = 64 << 20  # bytes of a block that is compared with the free memory


def zeros(nbytes: int, hint: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(nbytes,) uint8, zero, whose pages are allocated at their first use. Raises OutOfMemory, with the request and
    the free memory, where the machine has less."""
    try:
        if nbytes < LARGE:
            return np.zeros(nbytes, np.uint8)
        from core.device.large_blocks import large_zeros

        return large_zeros(nbytes)
    except (MemoryError, ValueError):  # the latter: more than an array can have
        from core.device.large_blocks import out_of_memory

        raise out_of_memory(nbytes, hint) from None
