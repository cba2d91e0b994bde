"""Strict mode's shadow memory: for each grain of a memory, its last writer and the readers since then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.sim.ptx.program import Program, per_program
from core.sim.ptx.register_types import TYPES, Array
from core.sim.ptx.state_spaces import space_of
from core.sim.strict.clocks import Accessors
from core.sim.strict.reader_stamps import LANES_BITS, SEVERAL, WARP_SHIFT, lane_of, time_of


def grain(program: Program, space: str) -> int:
    """Bytes that are watched together: the narrowest access to that space."""
    accessed = narrowest(program)
    return min(4, accessed.get(space, 4), accessed.get("generic", 4))


@per_program
def narrowest(program: Program) -> dict[str, int]:
    """The bytes of the narrowest access to each space that has one."""
    widths: dict[str, int] = {}
    for ins in program.instructions:
        if ins.names[0] in ("ld", "st", "atom", "red") and ins.names[-1] in TYPES:
            space, width = space_of(ins.names), TYPES[ins.names[-1]].bytes
            widths[space] = min(width, widths.get(space, width))
    return widths


class Shadow:
    """Arrays over the grains of a memory. Threads are numbered over the grid; a warp is thread // 32."""

    def __init__(self, size: int, grain: int) -> None:
        self.grain = grain
        count = size // grain + 1
        self.writer = np.full(count, -1, np.int64)  # thread, -1 for none
        self.written_at = np.zeros(count, np.int32)  # the writer's clock
        self.strong = np.zeros(count, np.int8)  # how strong the last write was (strict.strength)
        self.by = np.full(count, -1, np.int32)  # the instruction that wrote
        self.also: tuple[Array, Array] | None = None  # another thread, not ordered with the last writer, and its clock:
        # atomics of both. None while there is no such pair.
        self.latest = np.zeros(count, np.int64)  # the warp that read last, its time, and its lane: reader_stamps.py

    def others(self) -> Array:
        """By grain, the thread that `also` holds, -1 for none."""
        if self.also is None:
            self.also = np.full(len(self.writer), -1, np.int64), np.zeros(len(self.writer), np.int32)
        return self.also[0]

    def add_writer(self, places: Array, threads: Array, times: Array) -> None:
        """Remember one writer more."""
        self.others()[places] = threads
        assert self.also is not None
        self.also[1][places] = times

    def reads(self, places: Array, by: Accessors) -> None:
        """Remember the readers."""
        mine = by.packed
        before = self.latest[places]
        same = (before ^ mine) >> WARP_SHIFT == 0
        if same.any():
            others = same & (time_of(before) >= by.since) & (lane_of(before) != by.lane)
            if others.any():
                mine = mine.copy()
                mine[others] |= SEVERAL
        self.latest[places] = mine
        lost = self.latest[places] != mine  # readers of one instruction
        if lost.any():
            same = (self.latest[places] ^ mine) >> LANES_BITS == 0
            self.latest[places[lost & same]] |= SEVERAL

    def also_read(self, places: Array, by: Accessors) -> Array | None:
        """The lane of the same warp that has read, unordered with this one, by place; -1 for none, SEVERAL added for
        more than one. None where there is none at all."""
        before = self.latest[places]
        same = (before ^ by.packed) >> WARP_SHIFT == 0
        if not same.any():
            return None
        lane = lane_of(before)
        unordered = same & (time_of(before) >= by.since) & (lane != by.lane)
        return np.where(unordered, lane, -1) if unordered.any() else None

    def lane(self, place: int, warp: int) -> int:
        """The lane of a warp that read a place last, if no other lane did since; -1 where that is not known."""
        before = int(self.latest[place])
        return before % SEVERAL if before >> WARP_SHIFT == warp + 1 else -1


@dataclass
class Readers:
    """One warp that read global memory, and whether there were others: in the same thread block, or elsewhere."""

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
