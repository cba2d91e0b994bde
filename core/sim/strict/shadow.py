"""Strict mode's shadow memory: for each grain of a memory, its last writer and the readers since then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES, Array
from core.sim.ptx.state_spaces import space_of

SEVERAL = 32  # added to a lane: it is one of several
LANES_BITS, TIME_BITS = 6, 25  # of `latest`


def grain(program: Program, space: str) -> int:
    """Bytes that are watched together: the narrowest access to that space."""
    widths = [
        TYPES[i.names[-1]].bytes
        for i in program.instructions
        if i.names[0] in ("ld", "st", "atom", "red")
        and i.names[-1] in TYPES
        and space_of(i.names) in (space, "generic")
    ]
    return min([4, *widths])


class Shadow:
    """Arrays over the grains of a memory. Threads are numbered over the grid; a warp is thread // 32."""

    def __init__(self, size: int, grain: int) -> None:
        self.grain = grain
        count = size // grain + 1
        self.writer = np.full(count, -1, np.int64)  # thread, -1 for none
        self.written_at = np.zeros(count, np.int32)  # the writer's clock
        self.strong = np.zeros(count, np.int8)  # how strong the last write was (strict.strength)
        self.by = np.full(count, -1, np.int32)  # the instruction that wrote
        self.latest = np.zeros(count, np.int64)  # the warp that read last, its time, and its lane: see pack

    def reads(self, places: Array, warps: Array, times: Array, lanes: Array, since: Array) -> None:
        """Remember the readers, warps of the grid. since: the time from which on the lanes of a warp are unordered."""
        mine = pack(warps, times, lanes)
        before = self.latest[places]
        others = (before >> (LANES_BITS + TIME_BITS) == warps + 1) & (time_of(before) >= since)
        others &= before & ((1 << LANES_BITS) - 1) != lanes
        mine[others] |= SEVERAL
        self.latest[places] = mine
        lost = self.latest[places] != mine  # readers of one instruction
        if lost.any():
            same = (self.latest[places] ^ mine) >> LANES_BITS == 0
            self.latest[places[lost & same]] |= SEVERAL

    def also_read(self, places: Array, warps: Array, lanes: Array, since: Array) -> Array:
        """The lane of the same warp that has read, unordered with this one, by place; -1 for none, SEVERAL added for
        more than one."""
        before = self.latest[places]
        lane = before & ((1 << LANES_BITS) - 1)
        unordered = (before >> (LANES_BITS + TIME_BITS) == warps + 1) & (time_of(before) >= since) & (lane != lanes)
        return np.where(unordered, lane, -1)

    def lane(self, place: int, warp: int) -> int:
        """The lane of a warp that read a place last, if no other lane did since; -1 where that is not known."""
        before = int(self.latest[place])
        return before % SEVERAL if before >> (LANES_BITS + TIME_BITS) == warp + 1 else -1


def pack(warps: Array, times: Array, lanes: Array | int) -> Array:
    return np.asarray(((warps + 1) << TIME_BITS | times) << LANES_BITS | lanes)


def time_of(packed: Array) -> Array:
    return np.asarray(packed >> LANES_BITS & ((1 << TIME_BITS) - 1))


@dataclass
class Readers:
    """Of global memory, one warp that read, and whether there were others: in the same thread block, or elsewhere."""

    warp: Array  # -1 for none
    at: Array
    several: Array  # 0 one, 1 more of the block, 2 of other blocks
    time: Array

    @classmethod
    def of(cls, count: int) -> Readers:
        return cls(
            np.full(count, -1, np.int64), np.zeros(count, np.int32), np.zeros(count, np.int8), np.zeros(count, np.int64)
        )


class Global(Shadow):
    """The shadow of global memory; the batches of a launch share it."""

    def __init__(self, size: int, grain: int) -> None:
        super().__init__(size, grain)
        self.readers = Readers.of(len(self.writer))
