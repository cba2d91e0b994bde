"""Blocks that stay in cache, and their scratch memory, for variants of the cpu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from core.expr import cdiv

BLOCK = 192 * 1024  # bytes of one array in a block: the handful that a formula needs stay in a core's L2


def grain(rows: int, row_bytes: int) -> int:
    """The rows of a block, a function of the shape alone, so that bits repeat."""
    return max(1, min(rows, BLOCK // max(1, row_bytes)))


def carve(scratch: Any, dtype: Any, *shapes: tuple[int, ...]) -> list[Any]:
    """Arrays of `shapes` one after the other in `scratch`, which is bytes (u8), each on a multiple of 64 bytes."""
    arrays, at, item = [], 0, np.dtype(dtype).itemsize
    for shape in shapes:
        size = item * math.prod(shape)
        arrays.append(scratch[at : at + size].view(dtype).reshape(shape))
        at += cdiv(size, 64) * 64
    return arrays


def bytes_of(dtype: Any, *shapes: tuple[int, ...]) -> int:
    """Bytes of scratch that `carve` needs for them."""
    item = np.dtype(dtype).itemsize
    return sum(cdiv(item * math.prod(shape), 64) * 64 for shape in shapes)
