"""A tape of a launch: the effects of each instruction of each warp, lane by lane, as data.

A recorder (tape_rows.py) keeps rows: an instruction as one group of lanes ran it. `Tape` cuts them into steps of single
warps on request, and names the work under way (tape_flight.py). The sums over a whole tape are the counts of
`count=True`: both follow the same rules.
"""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from core.sim.counting import ATOMICS, BY_LANE, WARP, Counts, conflicts, contended, fewest, flops_of, sectors
from core.sim.machine.wording import Array as Variable
from core.sim.machine.wording import Wording
from core.sim.ptx.program import Program
from core.sim.ptx.syntax import Instruction, Location
from core.sim.tape_flight import Flight, Timeline, Warp, timeline
from core.sim.tape_rows import RowAccess, TapeRow, Visit, shown_register

WAITS = {"bar", "barrier"}
FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class WarpAccess:
    """Accesses of one warp instruction: `width` bytes at each of `at`, a byte of the space, by the lane of `lanes` at
    the same place; a lane that moves several pieces is listed several times.

    variable: the buffer or the variable, None where nothing names it. sectors: of 32 bytes that moved, needed: those
    that would have done (global); passes: over the banks beyond the ones that are needed (shared); turns: beyond the
    first that an atomic's lanes take at one address.
    """

    space: str
    how: str
    width: int
    variable: Variable | None
    lanes: tuple[int, ...]
    at: tuple[int, ...]
    sectors: int = 0
    needed: int = 0
    passes: int = 0
    turns: int = 0

    @property
    def buffer(self) -> str:
        """The variable's name, or the space."""
        if self.variable is not None:
            return self.variable.name
        return "the thread's local memory" if self.space == "local" else self.space

    @property
    def start(self) -> int:
        """The byte of the space at which the buffer begins."""
        return self.variable.start if self.variable is not None else 0

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return self.variable.item if self.variable is not None else self.width

    @property
    def nbytes(self) -> int:
        """Bytes that the lanes request."""
        return self.width * len(self.at)

    @property
    def places(self) -> tuple[int, ...]:
        """By lane, the byte of the space that it touches first; -1 for a lane that touches nothing."""
        return _by_lane(self.lanes, self.at)

    @property
    def index(self) -> tuple[int, ...]:
        """By lane, the element that it touches first; -1 for none."""
        return tuple(p if p < 0 else (p - self.start) // self.item for p in self.places)


@dataclass(frozen=True)
class BarrierState:
    """A barrier after a step. name: "barrier 0", "the cluster's barrier", or the mbarrier's variable. kind: as of a
    Visit. came: warps that arrived in this phase; arrived, expected: threads; bytes_left: of copies that the mbarrier
    counts; complete: the phase is over."""

    name: str
    kind: str
    came: tuple[Warp, ...]
    arrived: int
    expected: int
    bytes_left: int
    complete: bool


@dataclass(frozen=True)
class TapeStep:
    """One instruction of one warp. lanes: a mask of those that came; on: of those that its predicate let run.

    turn: how often its first lane has run an instruction of this kind for its line, and on this buffer, from 1: a
    loop's turn, unrolled or not. values: by lane (None: off), of the first result, or of a store the first value.
    source: the lane that each lane read in a shuffle. barriers: those that the step visits. flying: asynchronous work
    under way after it, of the warp's own and of its thread block's mbarriers.
    """

    number: int
    pc: int
    text: str
    location: Location
    lanes: int
    on: int
    turn: int
    accesses: tuple[WarpAccess, ...] = ()
    register: str = ""
    values: tuple[Any, ...] | None = None
    source: tuple[int, ...] | None = None
    barriers: tuple[BarrierState, ...] = ()
    flying: tuple[Flight, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it is a barrier of the thread block, or a wait at another one."""
        name = self.text.split(".")[0].split()[0]
        return name in WAITS or any(b.kind == "wait" for b in self.barriers)


class LoopTurns:
    """Counts how often each lane of a warp has run instructions of a kind."""

    def __init__(self) -> None:
        self.counts: dict[Hashable, list[int]] = {}

    def next(self, kind: Hashable, lanes: Sequence[int]) -> int:
        """Lanes run an instruction of a kind again: how often the first of them now has."""
        counts = self.counts.setdefault(kind, [0] * WARP)
        for lane in lanes:
            counts[lane] += 1
        return counts[lanes[0]]


@dataclass
class Tape:
    """The rows of a launch, in the order in which groups of lanes ran them.

    Steps are to be taken while the launch's memory exists: buffers are named by it.
    """

    program: Program
    words: Wording
    rows: list[TapeRow]
    _variables: dict[tuple[int, str, str, int], Variable | None] = field(default_factory=dict, repr=False)

    @property
    def warps(self) -> list[Warp]:
        """(thread block, warp) of every warp that ran."""
        return sorted(self._index)

    def steps(self, block: int, warp: int) -> Iterator[TapeStep]:
        """A warp's steps, in order; none for a warp that did not run, or that the tape leaves out."""
        turns = LoopTurns()
        for number, (at, start, stop) in enumerate(self._index.get((block, warp), ()), 1):
            yield self._step(number, at, (block, warp), start, stop, turns)

    def counts(self) -> Counts:
        """The sums over all warps, by the rules of core.sim.counting."""
        total = Counts()
        for block, warp in self.warps:
            for step in self.steps(block, warp):
                total += counts_of(self.program.instructions[step.pc], step)
        return total

    @cached_property
    def _index(self) -> dict[Warp, list[tuple[int, int, int]]]:
        """The rows that a warp ran: (row, where its lanes begin in it, where they end)."""
        rows: dict[Warp, list[tuple[int, int, int]]] = {}
        for number, row in enumerate(self.rows):
            here = row.here
            for i, key in enumerate(here.warps):
                rows.setdefault(key, []).append((number, here.starts[i], here.starts[i + 1]))
        return rows

    @cached_property
    def _shared_starts(self) -> list[int]:
        return sorted(at for space, at in self.program.places.values() if space == "shared")

    @cached_property
    def _timeline(self) -> Timeline:
        return timeline(self.program, self.rows)

    def _step(self, number: int, at: int, warp: Warp, start: int, stop: int, turns: LoopTurns) -> TapeStep:
        row = self.rows[at]
        ins, lanes = self.program.instructions[row.pc], row.here.lanes[start:stop]
        first = int(lanes[0]) // WARP * WARP
        within = (lanes - first).tolist()
        mask = _mask(within)
        on = mask if row.on is None else _mask((lanes[row.on[start:stop]] - first).tolist())
        accesses = tuple(a for t in row.touched if (a := self._access(ins, t, row.pc, first)) is not None)
        kind = (ins.location, ins.names, *(a.buffer for a in accesses))
        register = shown_register(ins)
        return TapeStep(
            number, row.pc, ins.text, ins.location, mask, on, turns.next(kind, within), accesses,
            register.name if register is not None else "", _values(row, start, stop, within, on),
            None if row.source is None else _by_lane(within, (row.source[start:stop] - first).tolist()),
            self._barriers(at, first), self._timeline.flying.get((at, warp), ()),
        )  # fmt: skip

    def _access(self, ins: Instruction, t: RowAccess, pc: int, first: int) -> WarpAccess | None:
        """The accesses of the warp whose lanes begin at `first`."""
        lanes, places = t.lanes, t.places
        if lanes[0] < first or lanes[-1] >= first + WARP:
            chosen = (lanes >= first) & (lanes < first + WARP)
            lanes, places = lanes[chosen], places[chosen]
        if not len(lanes):
            return None
        one = np.zeros(len(places), np.int64)
        moved = needed = passes = 0
        if t.space == "global":
            moved, needed = len(sectors(one, places)), fewest(one, places, t.width)
        elif t.space == "shared" and ins.names[0] in BY_LANE:
            passes = conflicts(lanes - first, places, t.width)
        turns = contended(one, places) if ins.names[0] in ATOMICS else 0
        variable = self._variable(ins, pc, t.space, int(places[0]), t.how)
        return WarpAccess(
            t.space, t.how, t.width, variable, tuple((lanes - first).tolist()), tuple(places.tolist()), moved, needed,
            passes, turns,
        )  # fmt: skip

    def _variable(self, ins: Instruction, pc: int, space: str, place: int, how: str) -> Variable | None:
        """The variable at a place, by the name that the caller of the launch gave the buffer, or by the kernel's
        own."""
        if space == "local":
            return None
        region = self.words.memory.region(place) if space == "global" else None
        at = region.start if region is not None else bisect.bisect_right(self._shared_starts, place)
        key = pc, space, how, at
        if key not in self._variables:
            variable = self.words.array(ins, space, place, how)
            if region is not None and region.tensor:
                variable = Variable(region.tensor, region.start, region.size, region.itemsize, region.sizes)
            self._variables[key] = variable
        return self._variables[key]

    def _barriers(self, at: int, first: int) -> tuple[BarrierState, ...]:
        """The barriers of a row that the warp whose lanes start at `first` visits."""
        barriers = []
        for place, v in enumerate(self.rows[at].visits):
            if any(first <= lane < first + WARP for lane in v.lanes):
                came = self._timeline.came.get((at, place), ())
                name = self._barrier_name(v)
                barriers.append(BarrierState(name, v.kind, came, v.arrived, v.expected, v.bytes_left, v.complete))
        return tuple(barriers)

    def _barrier_name(self, visit: Visit) -> str:
        if visit.kind in ("barrier", "cluster"):
            return f"barrier {visit.place}" if visit.kind == "barrier" else "the cluster's barrier"
        symbol = self.words.shared_at(visit.place)
        return symbol.element(visit.place, 8) if symbol is not None else f"the mbarrier at byte {visit.place}"


def counts_of(ins: Instruction, step: TapeStep) -> Counts:
    """A step's own counts, by the rules of core.sim.counting."""
    lanes = step.lanes.bit_count()
    total = Counts(instructions=1, threads=lanes, flops=round(flops_of(ins) * lanes))
    for a in step.accesses:
        if a.space == "local":
            continue
        if ins.names[0] in ATOMICS:
            total += Counts(atomics=1, contended=a.turns)
        if a.space == "global":
            total += Counts(requests=1, asked=a.nbytes, sectors=a.sectors, fewest=a.needed)
        else:
            total += Counts(shared=1, shared_bytes=a.nbytes, conflicts=a.passes)
    return total


def _values(row: TapeRow, start: int, stop: int, lanes: list[int], on: int) -> tuple[Any, ...] | None:
    """By lane, None for those that are off."""
    if row.values is None:
        return None
    held = row.values[start:stop] if len(row.values) > 1 else np.broadcast_to(row.values, (stop - start,))
    values: list[Any] = [None] * WARP
    for lane, value in zip(lanes, held.tolist(), strict=True):
        if on >> lane & 1:
            values[lane] = value
    return tuple(values)


def lanes_in(mask: int) -> list[int]:
    """The lanes of a mask, in order."""
    return [lane for lane in range(WARP) if mask >> lane & 1]


def _mask(lanes: list[int]) -> int:
    return FULL if len(lanes) == WARP else sum(1 << lane for lane in lanes)


def _by_lane(lanes: Any, values: Any) -> tuple[int, ...]:
    """By lane, the first of its values; -1 for a lane that is not there."""
    by_lane = [-1] * WARP
    for lane, value in zip(lanes, values, strict=True):
        if by_lane[lane] < 0:
            by_lane[lane] = value
    return tuple(by_lane)
