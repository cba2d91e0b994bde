"""Strict mode: reports what a chip would let pass, or get wrong only now and then.

Every access to shared and global memory is held against those before it. Two accesses to one place, at least one
of them a write, must be ordered by a barrier, an mbarrier or a fence with a flag; else they are a race. Order is
kept as vector clocks, one per warp (Fidge and Mattern, 1988; FastTrack, Flanagan and Freund, 2009), which finds a
race whether or not this run's schedule shows it. Shared memory starts unwritten; reading it then is an error too.

Clocks have one column per warp of the own cluster, and one per warp of the grid where the kernel has fences or
acquiring and releasing accesses: only then can thread blocks be ordered at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from core.device.sim import memory as layout
from core.device.sim.errors import KernelError
from core.device.sim.inflight import AGENTS, Later, Move, Work, queue
from core.device.sim.parser import Instruction
from core.device.sim.types import TYPES, Array

if TYPE_CHECKING:
    from core.device.sim.group import Group
    from core.device.sim.program import Program
    from core.device.sim.scheduler import Barrier, Batch

STRONG = {"relaxed", "acquire", "release", "acq_rel", "volatile", "mmio"}
WARP = 32
POISON = 0xFF  # shared memory before it is written: NaN in every float format
UNKNOWN = np.iinfo(np.int32).max  # the time of a write that nobody can know of yet


def is_strong(ins: Instruction) -> bool:
    """Whether an access may meet others of its kind without being ordered: atomics, relaxed loads and their like."""
    reduces = ins.names[0] in ("atom", "red") or ins.names[:2] == ("cp", "reduce")
    return reduces or not STRONG.isdisjoint(ins.names)


def orders_blocks(program: Program) -> bool:
    """Whether a kernel could order thread blocks among themselves."""
    return any(
        i.names[0] in ("fence", "membar") or not {"acquire", "release", "acq_rel"}.isdisjoint(i.names)
        for i in program.instructions
        if i.names[0] in ("fence", "membar", "ld", "st", "atom", "red") and not _of_the_block(i)
    )


def _of_the_block(ins: Instruction) -> bool:
    """Fences that order nothing between thread blocks of different clusters."""
    return ins.names[0] == "fence" and not {"proxy", "mbarrier_init"}.isdisjoint(ins.names)


def is_async(ins: Instruction) -> bool:
    """Whether an instruction's accesses go through the async proxy."""
    return ins.names[0] == "wgmma" or "bulk" in ins.names


def grain(program: Program, space: str) -> int:
    """Bytes that are watched together: the narrowest access to that space."""
    from core.device.sim.access import space_of

    widths = [
        TYPES[i.names[-1]].bytes
        for i in program.instructions
        if i.names[0] in ("ld", "st", "atom", "red")
        and i.names[-1] in TYPES
        and space_of(i.names) in (space, "generic")
    ]
    return min([4, *widths])


@dataclass
class Phase:
    """What strict mode keeps with a barrier of phases: the clocks of those that arrived, before and in this phase."""

    gathering: Array | None = None
    known: Array | None = None
    maker: tuple[int, int] | None = None  # the warp that initialised it, and when

    def turn(self) -> None:
        """The phase is complete."""
        if self.gathering is not None:
            self.known = self.gathering if self.known is None else np.maximum(self.known, self.gathering)
            self.gathering = None


@dataclass
class Shadow:
    """What is remembered of each grain of a memory. Threads are numbered over the grid; a warp is thread // 32."""

    grain: int
    writer: Array  # thread, -1 for none
    written_at: Array  # the writer's clock
    strong: Array  # whether the last write was a strong one

    @classmethod
    def of(cls, size: int, grain: int) -> Shadow:
        count = size // grain + 1
        return cls(grain, np.full(count, -1, np.int64), np.zeros(count, np.int32), np.zeros(count, np.bool_))


@dataclass
class Global(Shadow):
    """Global memory remembers one reader, and whether there were others: in the same thread block, or elsewhere."""

    reader: Array = field(default_factory=lambda: np.zeros(0))  # warp, -1 for none
    read_at: Array = field(default_factory=lambda: np.zeros(0))
    several: Array = field(default_factory=lambda: np.zeros(0))  # 0 one, 1 more of the block, 2 of other blocks
    read_time: Array = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def over(cls, size: int, grain: int) -> Global:
        base = Shadow.of(size, grain)
        count = len(base.writer)
        return cls(
            grain, base.writer, base.written_at, base.strong, np.full(count, -1, np.int64), np.zeros(count, np.int32),
            np.zeros(count, np.int8), np.zeros(count, np.int64),
        )  # fmt: skip


class Watch:
    """Watches one batch of thread blocks. `shadow` of global memory is shared by the batches of a launch."""

    def __init__(self, batch: Batch, shadow: Global, seed: int = 0) -> None:
        program = batch.program
        self.later = Later(seed)
        self.batch = batch
        self.block_warps = batch.padded // WARP
        self.crossing = orders_blocks(program)
        count = len(batch.numbers) * self.block_warps
        self.team = count if self.crossing else self.block_warps * batch.shape.cluster
        # [warp, column]: the latest time of that warp it knows of; the last columns are those of landing copies
        self.clock = np.zeros((count, self.team + AGENTS), np.int32)
        self.clock[np.arange(count), np.arange(count) % self.team] = 1
        self.shared = Shadow.of(batch.shared.size, grain(program, "shared"))
        self.readers = np.zeros((min(self.team, count), len(self.shared.writer)), np.int32)
        self.known = np.zeros(len(self.shared.writer), np.bool_)  # shared memory that something wrote
        self.memory = shadow
        self.first = int(batch.numbers[0]) * self.block_warps  # the first warp's number in the grid
        self.time = 0
        self.barrier_time = np.zeros(len(batch.numbers), np.int64)
        self.partial = np.zeros(len(batch.numbers), np.bool_)  # blocks that use barriers of part of their threads
        self.flags: dict[tuple[str, int], Array] = {}  # a flag's address -> the clock that it carries
        self.fenced = np.zeros_like(self.clock)  # what a warp publishes with its next strong write
        self.heard = np.zeros_like(self.clock)  # what it has read in flags and will know after a fence
        places = len(self.shared.writer)
        self.filling = np.zeros(places, np.int16)  # copies under way into a place
        self.draining = np.zeros(places, np.int16)  # asynchronous reads of it under way
        self.dirty = np.zeros(places, np.bool_)  # written by ordinary stores, not yet fenced for the async proxy
        self.agent = np.full(places, -1, np.int16)  # the column of the mbarrier that counts the copy which wrote it
        self.landed = np.zeros(places, np.int32)
        self.swizzle = np.full(places, -1, np.int16)  # of the tensor copy that wrote a place, -1 for other writes
        self.coming = np.zeros(len(batch.numbers), np.int64)  # copies under way into a thread block, for an mbarrier
        self.gone = np.zeros((len(batch.numbers), self.clock.shape[1]), np.int32)  # what exited warps knew, by block
        self.columns: dict[int, int] = {}
        self.ticks = np.zeros(AGENTS, np.int32)
        batch.shared[:] = POISON

    # ------------------------------------------------------------------ order
    def warps(self, g: Group, lanes: Array) -> Array:
        """A lane's warp, numbered over the batch."""
        return np.asarray(g.block[lanes] * self.block_warps + g.thread[lanes] // WARP)

    def own(self, warps: Array) -> Array:
        """Each warp's own time."""
        return np.asarray(self.clock[warps, warps % self.team])

    def ordered(self, warps: Array, others: Array, times: Array) -> Array:
        """Whether what `others` (warps of the grid) did at `times` is known to `warps` of the batch."""
        local = others - self.first
        here = (local >= 0) & (local < len(self.clock))
        same = here & (local // self.team == warps // self.team)
        result: Array = same & (self.clock[warps, np.where(same, local, 0) % self.team] >= times)
        return result

    def merge(self, warps: Array, extra: Array | None = None) -> None:
        """Warps meet at a barrier: each knows what any of them knew."""
        for team in np.unique(warps // self.team):
            members = np.unique(warps[warps // self.team == team])
            latest = self.clock[members].max(0)
            self.clock[members] = latest if extra is None else np.maximum(latest, extra)
        everyone = np.unique(warps)
        self.clock[everyone, everyone % self.team] += 1

    def warp_sync(self, g: Group) -> None:
        """bar.warp.sync: what lanes of a warp did before is ordered before what they do next."""
        here = np.unique(self.warps(g, g.indices()))
        self.clock[here, here % self.team] += 1

    def fence(self, g: Group) -> None:
        here = np.unique(self.warps(g, g.indices()))
        self.clock[here] = np.maximum(self.clock[here], self.heard[here])
        self.fenced[here] = self.clock[here]
        self.clock[here, here % self.team] += 1

    # ------------------------------------------------------------------ barriers
    def arrived(self, g: Group, lanes: Array, barrier: Barrier) -> None:
        here = np.unique(self.warps(g, lanes))
        latest = self.clock[here].max(0)
        barrier.known = latest if barrier.known is None else np.maximum(barrier.known, latest)
        self.clock[here, here % self.team] += 1

    def completed(self, barrier: Barrier, block: int, whole: bool) -> None:
        for waiting in barrier.waiting:
            here = np.unique(self.warps(waiting.group, waiting.index))
            assert barrier.known is not None
            self.clock[here] = np.maximum(self.clock[here], barrier.known)
        self._passed(np.array([block]), whole)

    def straight(self, g: Group, lanes: Array, whole: bool) -> None:
        """A barrier at which everybody arrives at once."""
        here = self.warps(g, lanes)
        # Teams of clusters and grids hold several thread blocks; a barrier joins one.
        order = np.unique(here)
        for block in np.unique(order // self.block_warps):
            members = order[order // self.block_warps == block]
            self.clock[members] = self.clock[members].max(0)
        self.clock[order, order % self.team] += 1
        self._passed(np.unique(g.block[lanes]), whole)

    def _passed(self, blocks: Array, whole: bool) -> None:
        self.time += 1
        if whole:
            self.barrier_time[blocks] = self.time
        else:
            self.partial[blocks] = True

    # ------------------------------------------------------------------ phases of mbarriers and cluster barriers
    def publish(self, phase: Phase, g: Group, lanes: Array, relaxed: bool = False) -> None:
        """Lanes arrive: what they know (relaxed: knew at their last fence) goes to whoever waits for the phase."""
        known = self._snapshot(g, lanes)
        self._gather(phase, self.fenced[np.unique(self.warps(g, lanes))].max(0) if relaxed else known)

    def initialised(self, phase: Phase, g: Group, lane: int) -> None:
        warp = int(self.warps(g, np.array([lane]))[0])
        phase.maker = warp, int(self.clock[warp, warp % self.team])

    def knows(self, phase: Phase, g: Group, lane: int) -> bool:
        """Whether the initialisation of an mbarrier is ordered before what a lane does now."""
        if phase.maker is None:
            return True
        warp = self.warps(g, np.array([lane]))
        maker, time = phase.maker
        return bool(warp[0] == maker or self.ordered(warp, np.array([maker + self.first]), np.array([time]))[0])

    def learn(self, phase: Phase, g: Group, lanes: Array) -> None:
        """Lanes have waited for a phase."""
        if phase.known is not None:
            here = np.unique(self.warps(g, lanes))
            self.clock[here] = np.maximum(self.clock[here], phase.known)

    # ------------------------------------------------------------------ accesses
    def access(self, g: Group, ins: Instruction, space: str, index: Array, lanes: Array, width: int, how: str) -> None:
        """Check and remember an access of `lanes` at byte positions `index`. how: read, write or atomic."""
        if space == "local":
            return
        self.time += 1
        shadow = self.shared if space == "shared" else self.memory
        if index.size != len(lanes):
            index = np.broadcast_to(index, (len(lanes),))
        parts = max(1, width // shadow.grain)
        places = index // shadow.grain
        if parts > 1:
            places = (places[:, None] + np.arange(parts)).reshape(-1)
            lanes = np.repeat(lanes, parts)
        strong = is_strong(ins)
        warps = self.warps(g, lanes)
        threads = (warps + self.first) * WARP + g.thread[lanes] % WARP
        at = _At(g, ins, space, places, lanes, warps, threads, strong)
        if space == "shared":
            self._check_under_way(at, how)
        if how != "write":
            self._check_read(at, shadow, how)
        if how != "read":
            self._check_write(at, shadow)
        if strong and not is_async(ins):
            self._flag(at, shadow, how)
        if space == "shared" and how != "read":
            self.dirty[at.places] = not is_async(ins)
            self.agent[at.places] = -1
            self.swizzle[at.places] = -1

    # ------------------------------------------------------------------ asynchronous work
    def _check_under_way(self, at: _At, how: str) -> None:
        filling = self.filling[at.places] > 0
        if filling.any():
            self._report(at, filling, "in flight", f"{how} of shared memory that a copy is still filling")
        agent = self.agent[at.places]
        if (agent >= 0).any():
            known = self.clock[at.warps, self.team + np.maximum(agent, 0)] >= self.landed[at.places]
            early = (agent >= 0) & ~known
            if early.any():
                self._report(at, early, "in flight", f"{how} of what a copy fills, without waiting for its mbarrier")
        if how != "read":
            draining = self.draining[at.places] > 0
            if draining.any():
                self._report(
                    at, draining, "in flight", "write of shared memory that is still being read asynchronously"
                )
        elif is_async(at.ins) and self.dirty[at.places].any():
            message = "an asynchronous read of ordinary stores without fence.proxy.async between"
            self._report(at, self.dirty[at.places], "proxy fence", message)

    def started(self, g: Group, name: str, kind: str, index: Array, lanes: Array, width: int, move: Move) -> Work:
        """Work is under way on `width` bytes at each position: one row a lane, waited for as `name`.

        kind "fill" and "drain" are of shared memory; "write" of global memory.
        """
        grain = self.memory.grain if kind == "write" else self.shared.grain
        places = (index // grain)[:, None] + np.arange(max(1, width // grain))
        work = Work(kind, np.array(lanes), places, move)
        queue(g, name).work.append(work)
        if kind == "write":
            self.memory.written_at[places] = UNKNOWN
        else:
            np.add.at(self.filling if kind == "fill" else self.draining, places, 1)
        self.later.issued(work)
        return work

    def committed(self, g: Group, name: str) -> None:
        queue(g, name).commit(g.indices())
        if name == "wgmma":
            g.wgmma.commit()

    def waited(self, g: Group, name: str, keep: int, also_open: bool = False) -> None:
        line = queue(g, name)
        for work, done in line.wait(g.indices(), keep, also_open):
            work.happen(work.rows[done])
            warps = self.warps(g, work.lanes[done])
            self._settle(g, work, done, self.own(warps))
            line.finish(work, done)
        self.later.pending = [work for work in self.later.pending if not work.moved.all()]
        if name == "wgmma":
            g.wgmma.wait(keep)

    def _settle(self, g: Group, work: Work, done: Array, time: Array) -> None:
        """Rows of work are over for the warps that issued them, at their `time`."""
        places, warps = work.places[done], self.warps(g, work.lanes[done])
        threads = (warps + self.first) * WARP + g.thread[work.lanes[done]] % WARP
        if work.kind == "drain":
            np.subtract.at(self.draining, places, 1)
            self.readers[(warps % len(self.readers))[:, None], places] = time[:, None]
        elif work.kind == "fill":  # the copy counts as written now, by the thread that waited for it
            np.subtract.at(self.filling, places, 1)
            self.shared.writer[places], self.shared.written_at[places] = threads[:, None], time[:, None]
        else:
            self.memory.writer[places], self.memory.written_at[places] = threads[:, None], time[:, None]

    def arriving(self, g: Group, lanes: Array, phase: Phase, arrive: Callable[[], None]) -> None:
        """Lanes arrive at an mbarrier when the copies that they have issued by now are there."""
        line = queue(g, "copy")
        copies = [(work, work.rows[np.isin(work.lanes, lanes)]) for work in line.work]
        times = np.zeros(g.lanes, np.int32)
        times[lanes] = self.own(self.warps(g, lanes))
        latest = self._snapshot(g, lanes)

        def land() -> None:
            for work, rows in copies:
                done = np.isin(work.rows, rows)
                if not done.any():
                    continue  # somebody has waited for them with wait_group
                work.happen(work.rows[done])
                self._settle(g, work, done, times[work.lanes[done]])
                line.finish(work, done)
            self._gather(phase, latest)
            arrive()

        self.later.lands(land)

    def landing(
        self, g: Group, lane: int, index: Array, phase: Phase, swizzle: int, block: int, move: Callable[[], None]
    ) -> None:
        """A copy that an mbarrier counts writes positions `index` of `block`: only who waits for that phase knows."""
        column = self.columns.setdefault(id(phase), len(self.columns) % AGENTS)
        self.ticks[column] += 1
        tick = self.ticks[column]
        places = np.unique(index // self.shared.grain)
        self.agent[places], self.landed[places], self.swizzle[places] = column, tick, swizzle
        latest = self._snapshot(g, np.array([lane]))
        latest[self.team + column] = tick
        self.coming[block] += 1

        def land() -> None:
            self.coming[block] -= 1
            self._gather(phase, latest)
            move()

        self.later.lands(land)

    def _snapshot(self, g: Group, lanes: Array) -> Array:
        """What lanes know; what they do next is later."""
        here = np.unique(self.warps(g, lanes))
        latest: Array = self.clock[here].max(0)
        self.clock[here, here % self.team] += 1
        return latest

    @staticmethod
    def _gather(phase: Phase, latest: Array) -> None:
        phase.gathering = latest if phase.gathering is None else np.maximum(phase.gathering, latest)

    def arranged(self, g: Group, ins: Instruction, index: Array, lane: int, swizzle: int) -> None:
        """A wgmma reads positions `index` as swizzled; what a tensor copy wrote must have been so as well."""
        written = self.swizzle[index // self.shared.grain]
        bad = (written >= 0) & (written != swizzle)
        if bad.any():
            found = int(written[bad][0])
            message = f"a descriptor of swizzle {swizzle} reads what a tensor copy wrote with swizzle {found}"
            raise self.batch.fault(ins, "swizzle", message, g, lane)

    def proxy_fence(self, g: Group) -> None:
        """fence.proxy.async: what these warps have written, or know to be written, may now be read asynchronously."""
        places = np.flatnonzero(self.dirty)
        writer = self.shared.writer[places] // WARP
        for warp in np.unique(self.warps(g, g.indices())).tolist():
            mine = writer == warp + self.first
            known = self.ordered(np.full(len(places), warp), writer, self.shared.written_at[places])
            self.dirty[places[mine | known]] = False

    def leaving(self, g: Group, lanes: Array) -> None:
        """Lanes exit: nothing of theirs may be under way but what bulk stores still write."""
        for name, line in g.queues.items():
            for work in line.work if name != "store" else ():
                left = np.isin(work.lanes, lanes)
                if left.any():
                    what = {"copy": "cp.async", "bulk": "bulk store", "wgmma": "wgmma"}[name]
                    message = f"a thread exits while its {what} is under way"
                    raise self._at_exit(g, message, int(work.lanes[left][0]), "wait_group 0 before the end")
        for warp in np.unique(self.warps(g, lanes)).tolist():
            block = warp // self.block_warps
            self.gone[block] = np.maximum(self.gone[block], self.clock[warp])

    def left(self, g: Group, blocks: Array, lane: int) -> None:
        """Thread blocks have exited: no copy may still come, and no peer of the cluster may use their memory."""
        if self.coming[blocks].any():
            message = "a thread block exits while a copy comes into its shared memory"
            raise self._at_exit(g, message, lane, "wait for the copy's mbarrier before the end")
        if self.batch.shape.cluster == 1:
            return
        for block in blocks.tolist():
            knows, stride = self.gone[block], self.batch.stride // self.shared.grain
            own = slice(block * stride, (block + 1) * stride)
            team = block * self.block_warps // self.team * self.team
            columns = np.arange(self.team)
            peers = (team + columns) // self.block_warps != block
            read = (self.readers[: self.team, own] > knows[: self.team, None])[peers[: len(self.readers)]]
            warp = self.shared.writer[own] // WARP - self.first - team
            peer = (self.shared.writer[own] >= 0) & (warp >= 0) & (warp < self.team)
            column = np.where(peer, warp, 0)
            wrote = peer & peers[column] & (self.shared.written_at[own] > knows[column])
            if read.any() or wrote.any():
                message = "a thread block exits while a peer of its cluster may still use its shared memory"
                raise self._at_exit(g, message, lane, "a cluster barrier before the end")

    def _at_exit(self, g: Group, message: str, lane: int, hint: str) -> KernelError:
        ins = self.batch.program.instructions[min(g.pc, len(self.batch.program.instructions) - 1)]
        return self.batch.fault(ins, "exit in flight", message, g, lane, hint=hint)

    def _check_read(self, at: _At, shadow: Shadow, how: str) -> None:
        if at.space == "shared" and not self.known[at.places].all():
            self._report(at, ~self.known[at.places], "uninitialised", "read of shared memory that nothing wrote")
        self._after_writes(at, shadow, "read")
        if how != "read" or at.strong:
            return
        if at.space == "shared":
            self.readers[at.warps % len(self.readers), at.places] = self.own(at.warps)
        else:
            self._remember_reader(at)

    def _after_writes(self, at: _At, shadow: Shadow, what: str) -> None:
        writer, times = shadow.writer[at.places], shadow.written_at[at.places]
        unknown = times == UNKNOWN
        some = (writer >= 0) & ((writer != at.threads) | unknown)
        if at.strong:
            some &= ~shadow.strong[at.places]
        if not some.any():
            return
        if (some & unknown).any():
            self._report(at, some & unknown, "in flight", f"{what} of global memory that a bulk store still writes")
        grid_warps = at.warps + self.first
        other = some & (writer // WARP != grid_warps)
        bad = other & ~self.ordered(at.warps, writer // WARP, times)
        if bad.any():
            self._report(at, bad, "race", f"race: this {what} is not ordered after a write", writer)
        inside = some & (writer // WARP == grid_warps) & (times == self.own(at.warps))
        if inside.any():
            self._report(
                at,
                inside,
                "race",
                f"race: this {what} and a write of the same warp need __syncwarp between them",
                writer,
            )

    def _remember_reader(self, at: _At) -> None:
        m = self.memory
        grid = at.warps + self.first
        before = m.reader[at.places]
        new = (before < 0) | (before == grid) | self.ordered(at.warps, before, m.read_at[at.places])
        more = np.where(before // self.block_warps == grid // self.block_warps, 1, 2)
        m.several[at.places] = np.where(new, m.several[at.places], np.maximum(m.several[at.places], more))
        m.reader[at.places] = grid
        # Readers of one instruction all count: those that lost the place to a later one are "several".
        lost = m.reader[at.places] != grid
        if lost.any():
            apart = m.reader[at.places] // self.block_warps != grid // self.block_warps
            np.maximum.at(m.several, at.places[lost], np.where(apart[lost], 2, 1).astype(np.int8))
        m.read_at[at.places] = self.own(at.warps)
        m.read_time[at.places] = self.time

    def _check_write(self, at: _At, shadow: Shadow) -> None:
        self._after_writes(at, shadow, "write")
        if at.space == "shared":
            self._after_shared_reads(at)
            self.known[at.places] = True
        else:
            self._after_global_reads(at)
        if not at.strong:
            self._one_writer(at)
        shadow.writer[at.places] = at.threads
        shadow.written_at[at.places] = self.own(at.warps)
        shadow.strong[at.places] = at.strong

    def _one_writer(self, at: _At) -> None:
        """Two warps that write one place in the same instruction."""
        order = np.argsort(at.places, kind="stable")
        places, warps = at.places[order], at.warps[order]
        twice = (places[1:] == places[:-1]) & (warps[1:] != warps[:-1])
        if twice.any():
            bad = np.zeros(len(order), np.bool_)
            bad[order[1:][twice]] = True
            self._report(at, bad, "race", "race: two warps write one place with nothing to order them")

    def _after_shared_reads(self, at: _At) -> None:
        times = self.readers[:, at.places]  # of each warp of the thread block
        if times.any():
            count = len(times)
            others = np.arange(count)[:, None] != at.warps % count
            for row, bad in enumerate(others & (times > self.clock[at.warps, :count].T)):
                if bad.any():
                    reader = np.where(bad, (at.warps // self.team * self.team + row + self.first) * WARP, -1)
                    self._report(at, bad, "race", "race: this write is not ordered after a read", reader)
        self.readers[:, at.places] = 0

    def _after_global_reads(self, at: _At) -> None:
        m = self.memory
        reader, several = m.reader[at.places], m.several[at.places]
        grid = at.warps + self.first
        block = at.g.block[at.lanes]
        same_block = reader // self.block_warps == grid // self.block_warps
        late = (m.read_time[at.places] >= self.barrier_time[block]) & ~self.partial[block]
        one = (several == 0) & (reader != grid) & ~self.ordered(at.warps, reader, m.read_at[at.places])
        few = (several == 1) & (~same_block | late)
        many = several == 2
        bad = (reader >= 0) & (one | ((few | many) & (not self.crossing)))
        if bad.any():
            self._report(at, bad, "race", "race: this write is not ordered after a read", reader * WARP)
        m.reader[at.places] = -1
        m.several[at.places] = 0

    def _flag(self, at: _At, shadow: Shadow, how: str) -> None:
        """Strong accesses carry clocks: with .release and .acquire at once, with a fence before or after else."""
        if not self.crossing:
            return
        names = set(at.ins.names)
        _, first = np.unique(at.warps * (len(shadow.writer) + 1) + at.places, return_index=True)
        for i in np.sort(first).tolist():
            key, warp = (at.space, int(at.places[i])), int(at.warps[i])
            if how != "write":
                carried = self.flags.get(key)
                if carried is not None:
                    self.heard[warp] = np.maximum(self.heard[warp], carried)
                    if names & {"acquire", "acq_rel"}:
                        self.clock[warp] = np.maximum(self.clock[warp], carried)
            if how != "read":
                given = self.clock[warp] if names & {"release", "acq_rel"} else self.fenced[warp]
                before = self.flags.get(key)
                # A read-modify-write passes on what was there; a plain store starts anew.
                keep = before is not None and how == "atomic"
                self.flags[key] = np.maximum(before, given) if keep and before is not None else given.copy()
                self.clock[warp, warp % self.team] += 1

    # ------------------------------------------------------------------ reports
    def _report(self, at: _At, bad: Array, kind: str, message: str, other: Array | None = None) -> None:
        place = int(np.flatnonzero(bad)[0])
        address = int(at.places[place]) * (self.shared.grain if at.space == "shared" else self.memory.grain)
        if at.space == "shared":
            address = address % self.batch.stride
            message += f" (shared+{address - layout.SHARED_START:#x})"
        else:
            message += f" ({self.batch.memory.near(address)})"
        if other is not None and other[place] >= 0:
            warp = int(other[place]) // WARP
            message += f"; the other access: thread block {warp // self.block_warps}, warp {warp % self.block_warps}"
        hints = {
            "race": "a barrier, or a fence and a flag, must stand between them",
            "in flight": "wait for it first" + (" (wait_group, not .read)" if at.space == "global" else ""),
        }
        raise self._error(at, kind, message, int(at.lanes[place]), address, hints.get(kind, ""))

    def _error(self, at: _At, kind: str, message: str, lane: int, address: int, hint: str) -> KernelError:
        return self.batch.fault(at.ins, kind, message, at.g, lane, address, hint)


@dataclass
class _At:
    """One access in the making: the instruction, and place, lane, warp and thread of every grain it touches."""

    g: Group
    ins: Instruction
    space: str
    places: Array
    lanes: Array
    warps: Array
    threads: Array
    strong: bool
