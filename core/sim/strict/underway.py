"""Strict mode's asynchronous work and its memory: ranges that copies and wgmma still read or write, and waiters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.machine.inflight import Later, Move, Work
from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.machine.waiting import Phase
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction
from core.sim.strict.clocks import AGENTS, WARP, Clocks
from core.sim.strict.races import UNKNOWN, At, Races

# (the access, which of its grains, kind, text appended to "thread 0 of block 0 reads box[3]", hint) raises
Report = Callable[[At, Array, str, str, str], None]
WAIT = "wait for it first"


class UnderWay:
    """Work of a batch that has been issued and is not waited for. report: raises for a finding at a place."""

    def __init__(self, batch: ResidentBlocks, clocks: Clocks, races: Races, seed: int, report: Report) -> None:
        self.batch, self.clocks, self.races, self.report = batch, clocks, races, report
        self.shared, self.memory = races.shared, races.memory
        self.later = Later(seed)
        places = len(self.shared.writer)
        self.filling = np.zeros(places, np.int16)  # copies under way into a place
        self.draining = np.zeros(places, np.int16)  # asynchronous reads of it under way
        self.dirty = np.zeros(places, np.bool_)  # written by ordinary stores, not yet fenced for the async proxy
        self.agent = np.full(places, -1, np.int16)  # the column of the mbarrier that counts the copy which wrote it
        self.landed = np.zeros(places, np.int32)
        self.swizzle = np.full(places, -1, np.int16)  # of the tensor copy that wrote a place, -1 for other writes
        self.coming = np.zeros(len(batch.numbers), np.int64)  # copies under way into a thread block, for an mbarrier
        self.columns: dict[int, int] = {}
        self.ticks = np.zeros(AGENTS, np.int32)

    # ------------------------------------------------------------------ accesses meanwhile
    def check(self, at: At) -> None:
        """An access to shared memory: to nothing that is under way."""
        filling = self.filling[at.places] > 0
        if filling.any():
            self.report(at, filling, "in flight", ", which a copy is still filling", WAIT)
        agent = self.agent[at.places]
        if (agent >= 0).any():
            ordered = self.clocks.clock[at.warps, self.clocks.team + np.maximum(agent, 0)] >= self.landed[at.places]
            early = (agent >= 0) & ~ordered
            if early.any():
                message = ", which a copy fills, without waiting for its mbarrier"
                self.report(at, early, "in flight", message, WAIT)
        if at.how != "read":
            draining = self.draining[at.places] > 0
            if draining.any():
                message = ", which is still being read asynchronously"
                self.report(at, draining, "in flight", message, WAIT)
        elif at.proxy and self.dirty[at.places].any():
            message = ", asynchronously, after ordinary stores to it without fence.proxy.async between"
            self.report(at, self.dirty[at.places], "proxy fence", message, "")

    def check_stored(self, at: At) -> None:
        """An access to global memory: to nothing that a bulk store still writes."""
        unknown = self.memory.written_at[at.places] == UNKNOWN
        if at.strong:
            unknown &= self.memory.strong[at.places] == 0
        if unknown.any():
            message = ", which a bulk store still writes"
            self.report(at, unknown, "in flight", message, f"{WAIT} (wait_group, not .read)")

    def written(self, at: At) -> None:
        """Shared memory was written by an ordinary or an asynchronous access."""
        self.dirty[at.places] = not at.proxy
        self.agent[at.places] = -1
        self.swizzle[at.places] = -1

    # ------------------------------------------------------------------ work that a group waits for
    def started(self, g: Lanes, name: str, kind: str, index: Array, lanes: Array, width: int, move: Move) -> Work:
        """Work is under way on `width` bytes at each position: one row a lane, waited for as `name`.

        kind "fill" and "drain" are of shared memory; "write" of global memory.
        """
        grain = self.memory.grain if kind == "write" else self.shared.grain
        places = (index // grain)[:, None] + np.arange(max(1, width // grain))
        work = Work(kind, np.array(lanes), places, move)
        g.work_of(name).work.append(work)
        if kind == "write":
            self.memory.written_at[places] = UNKNOWN
        else:
            np.add.at(self.filling if kind == "fill" else self.draining, places, 1)
        self.later.issued(work)
        return work

    def committed(self, g: Lanes, name: str) -> None:
        g.work_of(name).commit(g.indices())
        if name == "wgmma":
            g.wgmma.commit()

    def waited(self, g: Lanes, name: str, keep: int, also_open: bool = False) -> None:
        line = g.work_of(name)
        for work, done in line.wait(g.indices(), keep, also_open):
            work.happen(work.rows[done])
            self._settle(g, work, done, self.clocks.own(self.clocks.warps(g, work.lanes[done])))
            line.finish(work, done)
        self.later.pending = [work for work in self.later.pending if not work.moved.all()]
        if name == "wgmma":
            g.wgmma.wait(keep)

    def _settle(self, g: Lanes, work: Work, done: Array, time: Array) -> None:
        """Rows of work are over for the warps that issued them, at their `time`."""
        arrived = work.arrived[done]
        time = np.where(arrived > 0, arrived, time)  # an mbarrier's phase knows of it since
        places, warps = work.places[done], self.clocks.warps(g, work.lanes[done])
        threads = (warps + self.clocks.first) * WARP + g.thread[work.lanes[done]] % WARP
        if work.kind == "drain":
            np.subtract.at(self.draining, places, 1)
            readers = self.races.readers
            readers[(warps % len(readers))[:, None], places] = time[:, None]
            return
        shadow = self.shared if work.kind == "fill" else self.memory
        if work.kind == "fill":  # the copy counts as written now, by the thread that waited for it
            np.subtract.at(self.filling, places, 1)
        shadow.writer[places], shadow.written_at[places] = threads[:, None], time[:, None]

    # ------------------------------------------------------------------ work that an mbarrier counts
    def arriving(self, g: Lanes, lanes: Array, phase: Phase, arrive: Callable[[], None]) -> None:
        """Lanes arrive at an mbarrier when the copies that they have issued by now are there."""
        line = g.work_of("copy")
        copies = [(work, work.rows[np.isin(work.lanes, lanes)]) for work in line.work]
        times = np.zeros(g.lanes, np.int32)
        times[lanes] = self.clocks.own(self.clocks.warps(g, lanes))
        for work, _ in copies:  # those that no earlier arrival was for
            work.arrived = np.where(work.arrived == 0, times[work.lanes], work.arrived)
        latest = self.clocks.snapshot(g, lanes)

        def land() -> None:
            for work, rows in copies:
                done = np.isin(work.rows, rows)
                if not done.any():
                    continue  # a wait_group has waited for them
                work.happen(work.rows[done])
                self._settle(g, work, done, times[work.lanes[done]])
                line.finish(work, done)
            phase.gather(latest)
            arrive()

        self.later.lands(land)

    def landing(
        self, g: Lanes, lane: int, index: Array, phase: Phase, swizzle: int, block: int, move: Callable[[], None]
    ) -> None:
        """A copy that an mbarrier counts writes positions `index` of `block`: only who waits for that phase knows."""
        column = self.columns.setdefault(id(phase), len(self.columns) % AGENTS)
        self.ticks[column] += 1
        tick = self.ticks[column]
        places = np.unique(index // self.shared.grain)
        self.agent[places], self.landed[places], self.swizzle[places] = column, tick, swizzle
        latest = self.clocks.snapshot(g, np.array([lane]))
        latest[self.clocks.team + column] = tick
        self.coming[block] += 1

        def land() -> None:
            self.coming[block] -= 1
            phase.gather(latest)
            move()

        self.later.lands(land)

    def arranged(self, g: Lanes, ins: Instruction, index: Array, lane: int, swizzle: int) -> None:
        """A wgmma reads positions `index` as swizzled; a tensor copy must have written them so as well."""
        written = self.swizzle[index // self.shared.grain]
        bad = (written >= 0) & (written != swizzle)
        if bad.any():
            written_swizzle = int(written[bad][0])
            message = (
                f"a descriptor of swizzle {swizzle} reads data that a tensor copy wrote with swizzle {written_swizzle}"
            )
            raise self.batch.fault(ins, "swizzle", message, g, lane)

    def proxy_fence(self, g: Lanes) -> None:
        """fence.proxy.async: the writes of these warps, and those known to them, may now be read asynchronously."""
        places = np.flatnonzero(self.dirty)
        writer = self.shared.writer[places] // WARP
        for warp in self.clocks.here(g).tolist():
            mine = writer == warp + self.clocks.first
            ordered = self.clocks.ordered(np.full(len(places), warp), writer, self.shared.written_at[places])
            self.dirty[places[mine | ordered]] = False
