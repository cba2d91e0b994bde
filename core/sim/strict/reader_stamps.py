"""The reader of a place in one integer: its warp in the grid, the warp's time, and the lane."""

from __future__ import annotations

import numpy as np

from core.sim.ptx.register_types import Array

SEVERAL = 32  # added to a lane: it is one of several
LANES_BITS, TIME_BITS = 6, 25
WARP_SHIFT = LANES_BITS + TIME_BITS


def pack(warps: Array, times: Array, lanes: Array | int) -> Array:
    return np.asarray(((warps + 1) << TIME_BITS | times) << LANES_BITS | lanes)


def time_of(packed: Array) -> Array:
    return np.asarray(packed >> LANES_BITS & ((1 << TIME_BITS) - 1))


def lane_of(packed: Array) -> Array:
    return np.asarray(packed & ((1 << LANES_BITS) - 1))
