"""Strict mode's happens-before order: vector clocks of warps, and the points at which the lanes of a warp join.

A clock has one entry per warp (Fidge and Mattern, 1988; FastTrack, Flanagan and Freund, 2009): the latest time of that
warp of which its owner knows. Barriers, phases of mbarriers, and fences with flags pass clocks on. Columns are the
warps of the own cluster, or those of the grid where the kernel has fences or acquiring and releasing accesses: only
then can thread blocks be ordered at all.

Lanes of one warp are ordered by joins (__syncwarp, a barrier, a flag): `met` is the time of a warp from
which on its lanes' accesses are unordered among themselves. That lanes run in step orders nothing since Volta.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.machine.waiting import Barrier, Phase
from core.sim.ptx.program import Program, per_program
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction
from core.sim.strict.reader_stamps import pack

WARP = 32
QUICK = 1 << 16  # entries of the clocks up to which `over` is kept
AGENTS = 64  # columns of the clocks for mbarriers whose copies land


@per_program
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


@dataclass(eq=False)
class Accessors:
    """The threads of an access, one for each grain: their warps in the batch, and their numbers in the grid. Facts
    that follow from them are computed once; those of the clocks, once for each state of these. Not to be changed.
    """

    clocks: Clocks
    warps: Array
    threads: Array
    version: int = -1
    _own: Array = field(init=False)
    _since: Array = field(init=False)
    _packed: Array | None = field(init=False, default=None)

    @cached_property
    def grid(self) -> Array:
        """Their warps, numbered over the grid."""
        return np.asarray(self.warps + self.clocks.first)

    @cached_property
    def lane(self) -> Array:
        return np.asarray(self.threads & (WARP - 1))

    @cached_property
    def row(self) -> Array:
        """Their warps, numbered among those that reach the same shared memory."""
        return np.asarray(self.warps % self.clocks.sharers)

    @property
    def own(self) -> Array:
        """The present times of their warps."""
        self._settle()
        return self._own

    @property
    def since(self) -> Array:
        """The times from which on the lanes of their warps are unordered among themselves."""
        self._settle()
        return self._since

    @property
    def packed(self) -> Array:
        """Warp, time and lane, as Shadow.latest has them."""
        self._settle()
        if self._packed is None:
            self._packed = pack(self.grid, self._own, self.lane)
        return self._packed

    def _settle(self) -> None:
        if self.version != self.clocks.version:
            self.version, self._packed = self.clocks.version, None
            self._own, self._since = self.clocks.now[self.warps], self.clocks.met[self.warps]


class Clocks:
    """The clocks of one batch. Warps are numbered over the batch; `first` is the first one's number in the grid."""

    def __init__(self, batch: ResidentBlocks) -> None:
        self.block_warps = batch.padded // WARP
        self.crossing = orders_blocks(batch.program)
        self.count = count = len(batch.numbers) * self.block_warps
        self.sharers = min(self.block_warps * batch.shape.cluster, count)  # warps that reach the same shared memory
        self.team = count if self.crossing else self.block_warps * batch.shape.cluster
        # [warp, column]; the last columns are those of landing copies
        self.clock = np.zeros((count, self.team + AGENTS), np.int32)
        self.column = np.arange(count) % self.team  # of each warp, its own
        self.clock[np.arange(count), self.column] = 1
        self.now = np.ones(count, np.int32)  # each warp's own time
        self.met = np.ones(count, np.int32)
        self._over: Array | None = None
        self.version = 0  # counts the changes of `now` and `met`
        self.groups: dict[tuple[int, int], Accessors] = {}  # by group and parts: all of its lanes
        self.first = int(batch.numbers[0]) * self.block_warps
        self.flags: dict[tuple[str, int], Array] = {}  # a flag's address -> the clock that it carries
        self.fenced = np.zeros_like(self.clock)  # published by a warp with its next strong write
        self.given = np.zeros_like(self.clock)  # published with its last one
        self.heard = np.zeros_like(self.clock)  # read in flags, and known after a fence
        self.time = 0
        self.barrier_time = np.zeros(len(batch.numbers), np.int64)
        self.partial = np.zeros(len(batch.numbers), np.bool_)  # blocks that use barriers of part of their threads

    # ------------------------------------------------------------------ who and when
    def warps(self, g: Lanes, lanes: Array) -> Array:
        """A lane's warp, numbered over the batch."""
        return np.asarray(g.block[lanes] * self.block_warps + g.thread[lanes] // WARP)

    def here(self, g: Lanes, lanes: Array | None = None) -> Array:
        """The warps of some lanes, each once."""
        return np.unique(self.warps(g, g.indices() if lanes is None else lanes))

    def own(self, warps: Array) -> Array:
        """Each warp's own time."""
        return np.asarray(self.now[warps])

    def placed(self, g: Lanes, parts: int = 1) -> Accessors:
        """Every lane of a group, `parts` times each."""
        key = id(g), parts
        if key not in self.groups:
            warps = np.repeat(self.warps(g, np.arange(g.lanes)), parts)
            threads = (warps + self.first) * WARP + np.repeat(g.thread % WARP, parts)
            self.groups[key] = Accessors(self, warps, threads)
        return self.groups[key]

    def ordered(self, warps: Array, others: Array, times: Array) -> Array:
        """Whether the work of `others` (warps of the grid) at `times` is known to `warps` of the batch."""
        local = others - self.first
        here = (local >= 0) & (local < self.count)
        same = here & (local // self.team == warps // self.team)
        result: Array = same & (self.clock[warps, np.where(same, local, 0) % self.team] >= times)
        return result

    def over(self) -> Array | None:
        """For each warp, the time up to which all its possible observers know its work, its own lanes included: a quick
        answer for most accesses. None where these times are not kept."""
        if self.count * self.team > QUICK:
            return None
        if self._over is None:
            slowest = self.clock[:, : self.team].reshape(-1, self.team, self.team).min(1).reshape(-1)
            self._over = np.minimum(slowest, self.met - 1)
        return self._over

    # ------------------------------------------------------------------ carriers of clocks
    def _changed(self) -> None:
        self._over = None
        self.version += 1

    def _tick(self, warps: Array) -> None:
        self.now[warps] += 1
        self.clock[warps, self.column[warps]] = self.now[warps]
        self._changed()

    def _learn(self, warps: Array, clocks: Array) -> None:
        """Warps learn a clock; their lanes' accesses that it covers are over."""
        self.clock[warps] = np.maximum(self.clock[warps], clocks)
        own = clocks[self.column[warps]] if clocks.ndim == 1 else clocks[np.arange(len(warps)), self.column[warps]]
        self.met[warps] = np.maximum(self.met[warps], own + 1)
        self._changed()

    def warp_sync(self, g: Lanes) -> None:
        """bar.warp.sync: earlier work of a warp's lanes is ordered before their later work."""
        here = self.here(g)
        self._tick(here)
        self.met[here] = self.own(here)
        self._changed()

    def fence(self, g: Lanes) -> None:
        """Clocks read in flags earlier take effect now; the clocks known now are published with the next flag."""
        here = self.here(g)
        self._learn(here, self.heard[here])
        self.fenced[here] = self.clock[here]
        self._tick(here)

    def arrived(self, g: Lanes, lanes: Array, barrier: Barrier) -> None:
        latest = self.snapshot(g, lanes)
        barrier.known = latest if barrier.known is None else np.maximum(barrier.known, latest)

    def completed(self, barrier: Barrier, block: int) -> None:
        assert barrier.known is not None
        for waiting in barrier.waiting:
            self._learn(self.here(waiting.group, waiting.index), barrier.known)
        self._passed(np.array([block]), barrier.whole)

    def straight(self, g: Lanes, lanes: Array, whole: bool) -> None:
        """A barrier at which all arrive at once."""
        # Teams of clusters and grids hold several thread blocks; a barrier joins one.
        every = self.here(g, lanes)
        for block in np.unique(every // self.block_warps):
            members = every[every // self.block_warps == block]
            self.clock[members] = self.clock[members].max(0)
        self._tick(every)
        self.met[every] = self.own(every)
        self._changed()
        self._passed(np.unique(g.block[lanes]), whole)

    def _passed(self, blocks: Array, whole: bool) -> None:
        self.time += 1
        if whole:
            self.barrier_time[blocks] = self.time
        else:
            self.partial[blocks] = True

    def snapshot(self, g: Lanes, lanes: Array) -> Array:
        """The clocks of lanes; their next accesses are later."""
        here = self.here(g, lanes)
        latest: Array = self.clock[here].max(0)
        self._tick(here)
        return latest

    def publish(self, phase: Phase, g: Lanes, lanes: Array, relaxed: bool = False) -> None:
        """Lanes arrive: their clocks (relaxed: those of their last fence) pass to the threads that wait for the
        phase."""
        clocks = self.snapshot(g, lanes)
        phase.gather(self.fenced[self.here(g, lanes)].max(0) if relaxed else clocks)

    def learn(self, phase: Phase, g: Lanes, lanes: Array) -> None:
        """Lanes have waited for a phase."""
        if phase.known is not None and len(lanes):
            self._learn(self.here(g, lanes), phase.known)

    def initialised(self, phase: Phase, g: Lanes, lane: int) -> None:
        warp = self.warps(g, np.array([lane]))
        phase.maker = int(warp[0]), int(self.own(warp)[0])

    def knows(self, phase: Phase, g: Lanes, lane: int) -> bool:
        """Whether the initialisation of an mbarrier is ordered before a lane's present work."""
        if phase.maker is None:
            return True
        warp = self.warps(g, np.array([lane]))
        maker, time = phase.maker
        return bool(warp[0] == maker or self.ordered(warp, np.array([maker + self.first]), np.array([time]))[0])

    def flag(self, names: set[str], how: str, keys: list[tuple[str, int]], warps: list[int]) -> None:
        """Strong accesses carry clocks: with .release and .acquire at once, with a fence before or after else."""
        for key, warp in zip(keys, warps, strict=True):
            carried = self.flags.get(key)
            if how != "write" and carried is not None:
                self.heard[warp] = np.maximum(self.heard[warp], carried)
                if names & {"acquire", "acq_rel"}:
                    self._learn(np.array([warp]), carried)
            if how != "read":
                clock = self.clock[warp] if names & {"release", "acq_rel"} else self.fenced[warp]
                self.given[warp] = clock
                # A read-modify-write passes on the earlier clock; a plain store starts a new one.
                keep = carried is not None and how == "atomic"
                self.flags[key] = np.maximum(carried, clock) if keep and carried is not None else clock.copy()
                self._tick(np.array([warp]))
