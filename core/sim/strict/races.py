"""Strict mode's races: two accesses to one place, at least one of them a write, without an order between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.sim.machine.lanes import Lanes
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction
from core.sim.strict.clocks import WARP, Accessors, Clocks
from core.sim.strict.reader_stamps import SEVERAL
from core.sim.strict.shadow import Global, Shadow

WEAK, VOLATILE, STRONG = 0, 1, 2  # how much an access may meet others without being ordered
WARP_BITS = 5  # of a thread's number, those of its lane
UNKNOWN = np.iinfo(np.int32).max  # the time of a write that is not ordered yet


@dataclass
class At:
    """One access in the making: the instruction, and place, lane and thread of every grain it touches.

    strong: WEAK; VOLATILE, which may meet its like in other warps; STRONG, atomics and relaxed accesses, in all.
    """

    g: Lanes
    ins: Instruction
    number: int  # of the instruction in its program
    space: str
    places: Array
    lanes: Array
    by: Accessors
    strong: int
    how: str
    proxy: bool  # by the async proxy

    @property
    def warps(self) -> Array:
        """The warp of every grain, numbered over the batch."""
        return self.by.warps

    @property
    def threads(self) -> Array:
        """The thread of every grain, numbered over the grid."""
        return self.by.threads


@dataclass
class Other:
    """The access that another one is not ordered with: by thread, or one of several threads of a warp of the grid.

    by: the number of its instruction, -1 where that is not kept.
    """

    thread: int
    several: bool = False
    how: str = "write"
    by: int = -1


# (the access, which of its grains are in a race, the other access of grain i) raises
Report = Callable[[At, Array, Callable[[int], Other]], None]


class Races:
    """Compares every access with the shadow of its memory. report: raises for a race."""

    def __init__(self, clocks: Clocks, shared: Shadow, memory: Global, report: Report) -> None:
        self.clocks, self.shared, self.memory, self.report = clocks, shared, memory, report
        # [warp of the cluster, place]: when that warp last read it
        self.readers = np.zeros((clocks.sharers, len(shared.writer)), np.int32)

    def read(self, at: At) -> None:
        """A read: after writes that it is not ordered with, and remembered for later writes."""
        shadow = self.shadow(at)
        self._after_writes(at, shadow)
        if at.how != "read" or at.strong == STRONG:
            return
        if not at.proxy:
            shadow.reads(at.places, at.by)
        if at.strong == VOLATILE:
            return
        if at.space == "shared":
            self.readers[at.by.row, at.places] = at.by.own
        else:
            self._remember_reader(at, at.by.own)

    def write(self, at: At) -> None:
        """A write: after reads and writes that it is not ordered with."""
        shadow = self.shadow(at)
        self._after_writes(at, shadow)
        self._after_reads_of_the_warp(at, shadow)
        if at.space == "shared":
            self._after_shared_reads(at)
        else:
            self._after_global_reads(at)
        if at.strong == WEAK:
            self._one_writer(at)
        if at.strong == STRONG and not self.clocks.crossing:
            self._remember_atomics(at, shadow)
        elif shadow.also is not None:
            shadow.also[0][at.places] = -1
        shadow.writer[at.places] = at.threads
        shadow.written_at[at.places] = at.by.own
        shadow.strong[at.places] = at.strong
        shadow.by[at.places] = at.number

    def shadow(self, at: At) -> Shadow:
        return self.shared if at.space == "shared" else self.memory

    # ------------------------------------------------------------------ after writes
    def _after_writes(self, at: At, shadow: Shadow) -> None:
        writer, times = shadow.writer[at.places], shadow.written_at[at.places]
        if writer.max() < 0:
            return
        self._after(at, shadow, writer, times, np.minimum(shadow.strong[at.places], at.strong))
        if shadow.also is not None and at.strong == WEAK:
            thread, when = (held[at.places] for held in shadow.also)
            self._after(at, shadow, thread, when, np.full(len(thread), WEAK))

    def _after(self, at: At, shadow: Shadow, writer: Array, times: Array, strength: Array) -> None:
        """Report an access that is not ordered after these writers. strength: of the weaker of both."""
        clocks, over = self.clocks, self.clocks.over()
        if (
            over is not None
            and at.space == "shared"
            and (times <= over[np.maximum((writer >> WARP_BITS) - clocks.first, 0)]).all()
        ):
            return
        some = (writer >= 0) & ((writer != at.threads) | (times == UNKNOWN))
        if not some.any():
            return
        warps = writer >> WARP_BITS
        elsewhere = warps != at.by.grid
        bad = some & elsewhere & (strength == WEAK) & ~clocks.ordered(at.warps, warps, times)
        bad |= some & ~elsewhere & (strength < STRONG) & (times >= at.by.since)
        if bad.any():
            self.report(at, bad, lambda i: Other(int(writer[i]), by=int(shadow.by[at.places[i]])))

    def _remember_atomics(self, at: At, shadow: Shadow) -> None:
        """Atomics need no order among each other: a later access has to be ordered after all of them, not only after
        the last. One that is not ordered with the last is remembered."""
        before, times = shadow.writer[at.places], shadow.written_at[at.places]
        warps = before >> WARP_BITS
        late = np.where(warps == at.by.grid, times >= at.by.since, ~self.clocks.ordered(at.warps, warps, times))
        other = np.flatnonzero((before >= 0) & (before != at.threads) & late)
        self._add_writers(shadow, at.places[other], before[other], times[other], at.threads[other])
        shadow.writer[at.places] = at.threads
        last = shadow.writer[at.places]
        lost = np.flatnonzero(last != at.threads)  # of one instruction
        self._add_writers(shadow, at.places[lost], at.threads[lost], at.by.own[lost], last[lost])

    def _add_writers(self, shadow: Shadow, places: Array, threads: Array, times: Array, last: Array) -> None:
        """Remember one more writer of each place: of another thread block, if there is one.
        last: the threads that have written last."""
        threads_of_block = self.clocks.block_warps * WARP
        elsewhere = threads // threads_of_block != last // threads_of_block
        held = shadow.others()[places] if places.size else places
        better = elsewhere | (held < 0) | (held // threads_of_block == last // threads_of_block)
        order = np.flatnonzero(better)[np.argsort(elsewhere[better], kind="stable")]  # those of other blocks last
        if order.size:
            shadow.add_writer(places[order], threads[order], times[order])

    # ------------------------------------------------------------------ after reads
    def _after_reads_of_the_warp(self, at: At, shadow: Shadow) -> None:
        if at.strong == STRONG or at.proxy:
            return
        if (readers := shadow.also_read(at.places, at.by)) is None:
            return
        lanes = readers  # as the function below has them

        def other(i: int) -> Other:
            writer = int(lanes[i]) % SEVERAL
            return Other(int(at.by.grid[i]) * WARP + writer, writer == int(at.by.lane[i]), "read")

        self.report(at, lanes >= 0, other)

    def _after_shared_reads(self, at: At) -> None:
        times = self.readers[:, at.places]  # of each warp of the cluster
        if times.any():
            clocks, count = self.clocks, len(times)
            rows, base = np.arange(count)[:, None], at.warps - at.by.row
            late = (rows != at.by.row) & (times > clocks.clock[at.warps, (base + rows) % clocks.team])
            if late.any():

                def other(i: int) -> Other:
                    row = int(np.flatnonzero(late[:, i])[0])
                    return self._reader(at, i, int(base[i]) + row + clocks.first)

                self.report(at, late.any(0), other)
        self.readers[:, at.places] = 0

    def _reader(self, at: At, i: int, warp: int) -> Other:
        """A thread of a warp of the grid that has read grain `i` of an access."""
        lane = self.shadow(at).lane(int(at.places[i]), warp)
        return Other(warp * WARP + max(lane, 0), lane < 0, "read")

    def _remember_reader(self, at: At, own: Array) -> None:
        m, clocks = self.memory.readers, self.clocks
        grid = at.by.grid
        before = m.warp[at.places]
        several = m.several[at.places]
        more = np.flatnonzero((before >= 0) & (before != grid) & (several < 2))
        if more.size:
            places, was, now = at.places[more], before[more], grid[more]
            new = clocks.ordered(at.warps[more], was, m.at[places])
            how = np.where(was // clocks.block_warps == now // clocks.block_warps, 1, 2)
            m.several[places] = np.where(new, several[more], np.maximum(several[more], how))
        m.warp[at.places] = grid
        # Readers of one instruction all count: those that lost the place to a later one are "several".
        lost = m.warp[at.places] != grid
        if lost.any():
            elsewhere = m.warp[at.places] // clocks.block_warps != grid // clocks.block_warps
            np.maximum.at(m.several, at.places[lost], np.where(elsewhere[lost], 2, 1).astype(np.int8))
        m.at[at.places] = own
        m.time[at.places] = clocks.time

    def _after_global_reads(self, at: At) -> None:
        m, clocks = self.memory.readers, self.clocks
        reader, several = m.warp[at.places], m.several[at.places]
        if (reader < 0).all():
            return
        grid = at.by.grid
        block = at.g.block[at.lanes]
        same_block = reader // clocks.block_warps == grid // clocks.block_warps
        late = (m.time[at.places] >= clocks.barrier_time[block]) & ~clocks.partial[block]
        one = (several == 0) & (reader != grid) & ~clocks.ordered(at.warps, reader, m.at[at.places])
        few = (several == 1) & (~same_block | late)
        many = several == 2
        bad = (reader >= 0) & (one | ((few | many) & (not clocks.crossing)))
        if bad.any():
            self.report(at, bad, lambda i: self._reader(at, i, int(reader[i])))
        m.warp[at.places] = -1
        m.several[at.places] = 0

    # ------------------------------------------------------------------ within one instruction
    def _one_writer(self, at: At) -> None:
        """Two warps that write one place in the same instruction."""
        order = np.argsort(at.places, kind="stable")
        places, warps = at.places[order], at.warps[order]
        twice = (places[1:] == places[:-1]) & (warps[1:] != warps[:-1])
        if twice.any():
            first, second = order[:-1][twice], order[1:][twice]
            bad = np.zeros(len(order), np.bool_)
            bad[second] = True
            before = dict(zip(second.tolist(), first.tolist(), strict=True))
            self.report(at, bad, lambda i: Other(int(at.threads[before[i]]), by=at.number))
