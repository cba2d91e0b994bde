"""Scratch memory and block sizes that the cpu variants share. Not a variant."""

import math

import numpy as np

from core import cdiv

BLOCK = 192 * 1024  # bytes of one array in a block: the handful that a formula needs stay in a core's L2


def grain(rows, row_bytes):
    """How many rows make a block; a function of the shape alone, so that bits repeat."""
    return max(1, min(rows, BLOCK // max(1, row_bytes)))


def carve(scratch, dtype, *shapes):
    """Arrays of `shapes` one after the other in `scratch`, which is bytes."""
    arrays, at, item = [], 0, np.dtype(dtype).itemsize
    for shape in shapes:
        size = item * math.prod(shape)
        arrays.append(scratch[at : at + size].view(dtype).reshape(shape))
        at += cdiv(size, 64) * 64
    return arrays


def bytes_of(dtype, *shapes):
    """What `carve` needs."""
    item = np.dtype(dtype).itemsize
    return sum(cdiv(item * math.prod(shape), 64) * 64 for shape in shapes)
