"""Lanes that name each other by a membermask, and those that wait in __syncwarp.

PTX ISA of shfl, vote, match, redux, elect and bar.warp .sync: the executing thread waits until all threads that its
membermask names have executed the instruction with the same mask, and must itself be named. Masks may differ between
the lanes of a warp: each set of lanes that names itself works alone.
"""

from __future__ import annotations

import numpy as np

from core.sim.machine.geometry import WARP
from core.sim.ptx.register_types import UNSIGNED, Array

U32 = UNSIGNED[32]
EVERYBODY = 0xFFFFFFFF
LANE = np.arange(WARP, dtype=U32)


def warp_words(flags: Array) -> Array:
    """Bools over lanes -> one word per warp."""
    packed: Array = np.packbits(flags.reshape(-1, WARP), axis=1, bitorder="little").view(U32)
    return packed.reshape(-1)


def named(masks: Array) -> Array:
    """[..., WARP] bools: the lanes that membermasks name."""
    return np.asarray((masks[..., None] >> LANE) & U32.type(1) == 1)


def disputed(members: Array) -> Array:
    """[warp, lane, other]: `lane` names `other`, whose own mask is another one."""
    return np.asarray(named(members) & (members[:, :, None] != members[:, None, :]))


class Meeting:
    """The lanes of a group that wait in bar.warp.sync: the mask of each, and its next instruction."""

    def __init__(self, lanes: int) -> None:
        self.masks = np.zeros(lanes, U32)  # zero for a lane that does not wait
        self.resume = np.zeros(lanes, np.int64)

    def come(self, lanes: Array, masks: Array, pc: int) -> None:
        self.masks[lanes], self.resume[lanes] = masks, pc

    def leave(self, live: Array) -> Array:
        """The lanes for which all live lanes that they name have arrived; they no longer wait."""
        members = self.masks.reshape(-1, WARP)
        late = (disputed(members) & live.reshape(-1, 1, WARP)).any(2)
        met = np.flatnonzero(~late.reshape(-1) & (self.masks != 0))
        self.masks[met] = 0
        return met

    def waits(self) -> int | None:
        """A lane that still waits."""
        left = np.flatnonzero(self.masks)
        return int(left[0]) if left.size else None

    def awaited(self, lane: int, live: Array) -> int:
        """The lane of the warp for which `lane` waits."""
        members, warp = self.masks.reshape(-1, WARP), lane // WARP
        late = disputed(members[warp : warp + 1])[0, lane % WARP] & live.reshape(-1, WARP)[warp]
        return int(np.flatnonzero(late)[0])


def shuffled_from(mode: str, lanes: int, offset: Array, clamp: Array) -> tuple[Array, Array]:
    """For each of `lanes` lanes in whole warps: (the lane that it reads, whether that is within its bounds)."""
    lane = np.arange(lanes) % WARP
    segment = (clamp >> np.uint32(8)).astype(np.int64) & 31
    by, bound = offset.astype(np.int64) & 31, clamp.astype(np.int64) & 31
    top = (lane & segment) | (bound & ~segment)
    bottom = lane & segment
    source = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": bottom | (by & ~segment)}[mode]
    good = source >= top if mode == "up" else source <= top
    return np.arange(lanes) - lane + np.where(good, source, lane), good
