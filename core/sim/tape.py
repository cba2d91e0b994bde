"""A tape of a launch: what each instruction of each warp did, lane by lane, as data.

A `TapeRecorder` watches one batch, as core.sim.counting's Counter does, and keeps rows: an instruction as one group of
lanes ran it. `Tape` cuts rows into steps of single warps on request. It changes nothing that a kernel computes.
The sums over a whole tape are the counts of `count=True`: both follow the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.sim.counting import ATOMICS, BY_LANE, WARP, Counts, conflicts, contended, fewest, flops_of, sectors
from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.machine.warps import shuffled_from
from core.sim.machine.wording import Wording
from core.sim.ptx.effects import elements
from core.sim.ptx.program import Block, Program, kept
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Immediate, Instruction, Location, Pair, Register

LARGEST = 2_000_000  # lane-instructions that a tape holds; a launch beyond that is for a smaller example
NO_RESULT = {"st", "red", "bar", "barrier", "bra", "ret", "exit", "fence", "membar", "stmatrix", "mbarrier"}
WAITS = {"bar", "barrier"}


@dataclass(frozen=True)
class RowAccess:
    """An access of some lanes of a row. space: global, shared or local; lanes: of the group; places: byte addresses in
    the space (of shared and local memory: in the thread block's or thread's own)."""

    space: str
    how: str
    width: int
    lanes: Array
    places: Array


@dataclass
class TapeRow:
    """An instruction as one group of lanes ran it.

    lanes: of the group, those that came to it; on: those of them that its predicate lets run; block, thread: of each
    lane of the group; values: of the first result, one each of `lanes`, or None; source: the lane that each of `lanes`
    read in a shuffle.
    """

    pc: int
    lanes: Array
    on: Array
    block: Array
    thread: Array
    touched: list[RowAccess] = field(default_factory=list)
    values: Array | None = None
    source: Array | None = None


class TapeRecorder:
    """Watches one batch: `run` runs a block's instructions, `access` sees every access, `ends` the last instruction."""

    def __init__(self, batch: ResidentBlocks) -> None:
        self.batch = batch
        self.rows: list[TapeRow] = []
        self.held = 0

    def run(self, g: Lanes, block: Block) -> None:
        """Run a block's instructions but for its last, control one, row by row."""
        at, code = block.start, self.batch.program.instructions
        for step, covers in zip(block.steps, block.covers, strict=True):
            rows = [self._row(g, pc) for pc in range(at, at + covers)]
            step(g)
            for row in rows:
                row.values = self._values(g, row, code[row.pc])
            at += covers
        if at < block.stop:
            self._row(g, at)

    def access(self, g: Lanes, ins: Instruction, space: str, index: Array, lanes: Array, width: int, how: str) -> None:
        """`width` bytes of each lane at `index`, a place in its space; one place where all lanes share it."""
        if not {"param", "const"}.isdisjoint(n.partition(":")[0] for n in ins.names):
            return
        places = np.broadcast_to(index, (len(lanes),)).astype(np.int64)
        if space == "shared":
            places = places % self.batch.stride
        elif space == "local":
            places = places - lanes * self.batch.local_stride
        self.rows[-1].touched.append(RowAccess(space, how, width, lanes.copy(), places))

    def _row(self, g: Lanes, pc: int) -> TapeRow:
        lanes, ins = g.indices().copy(), self.batch.program.instructions[pc]
        on = lanes
        if ins.predicate is not None:
            chosen = g.whole(self.batch.program.number(ins.predicate))[lanes].astype(np.bool_)
            on = lanes[chosen != ins.negated]
        self.held += len(lanes)
        if self.held > LARGEST:
            raise self.batch.fault(
                ins, "tape", f"a tape holds {LARGEST:,} instructions of threads, and this launch takes more", g,
                int(lanes[0]), hint="tape a smaller example: fewer thread blocks, fewer elements",
            )  # fmt: skip
        row = TapeRow(pc, lanes, on, np.asarray(self.batch.numbers)[g.block], g.thread)
        if ins.names[0] == "shfl":
            row.source = self._source(g, ins, lanes)
        self.rows.append(row)
        return row

    def _values(self, g: Lanes, row: TapeRow, ins: Instruction) -> Array | None:
        result = first_result(ins)
        if result is None:
            return None
        kind = self.batch.program.kind(result)
        bits = g.whole(self.batch.program.number(result))[row.lanes]
        return bits if kind.numpy == bits.dtype else np.ascontiguousarray(bits).view(kind.numpy)

    def _source(self, g: Lanes, ins: Instruction, lanes: Array) -> Array:
        offset, clamp = (self._operand(g, o) for o in ins.operands[2:4])
        return shuffled_from(ins.names[2], g.lanes, offset, clamp)[0][lanes]

    def _operand(self, g: Lanes, operand: Any) -> Array:
        if isinstance(operand, Register):
            return np.asarray(g.whole(self.batch.program.number(operand))).view(np.uint32)
        bits = operand.bits if isinstance(operand, Immediate) else 0
        return np.full(g.lanes, bits & 0xFFFFFFFF, np.uint32)


def first_result(ins: Instruction) -> Register | None:
    """The register that an instruction writes, the first of several; None where it writes none."""
    if ins.names[0] in NO_RESULT or not ins.operands:
        return None
    given = ins.operands[0]
    first = given.first if isinstance(given, Pair) else next(iter(elements(given)), None)
    return first if isinstance(first, Register) and first.name != "_" else None


@dataclass(frozen=True)
class WarpAccess:
    """What a warp's instruction touched. index: of each lane's first element in `buffer`, whose elements have `item`
    bytes; -1 for lanes that touched nothing. places: byte addresses in the space, -1 likewise.

    sectors: of 32 bytes that moved, needed: those that would have done (global); passes: over the banks beyond the
    ones that are needed (shared); turns: beyond the first that an atomic's lanes take at one address.
    """

    space: str
    how: str
    width: int
    buffer: str
    item: int
    index: tuple[int, ...]
    places: tuple[int, ...]
    sectors: int = 0
    needed: int = 0
    passes: int = 0
    turns: int = 0


@dataclass(frozen=True)
class TapeStep:
    """One instruction of one warp. lanes: a mask of those that came; on: of those that its predicate let run.

    turn: how often this warp has run the instruction, from 1; an unrolled loop has one instruction a turn. copy: which
    of a source line's instructions of this kind it is, from 1. values: of the first result, by lane (None: off).
    source: the lane that each lane read in a shuffle. in_flight: the warp's cp.async copies and groups that no wait
    has covered.
    """

    number: int
    pc: int
    text: str
    location: Location
    lanes: int
    on: int
    turn: int
    copy: int
    accesses: tuple[WarpAccess, ...] = ()
    register: str = ""
    values: tuple[Any, ...] | None = None
    source: tuple[int, ...] | None = None
    waits: bool = False
    in_flight: int = 0


@dataclass
class Tape:
    """The rows of a launch, in the order in which groups of lanes ran them."""

    program: Program
    words: Wording
    rows: list[TapeRow]

    @property
    def warps(self) -> list[tuple[int, int]]:
        """(thread block, warp) of every warp that ran."""
        ran = [np.unique(r.block[r.lanes] << 32 | r.thread[r.lanes] // WARP) for r in self.rows]
        return [(int(key) >> 32, int(key) & 0xFFFFFFFF) for key in np.unique(np.concatenate(ran))] if ran else []

    def steps(self, block: int, warp: int) -> Iterator[TapeStep]:
        """A warp's steps, in order."""
        turns: dict[int, int] = {}
        flight = _Flight()
        number = 0
        for row in self.rows:
            mine = (row.block[row.lanes] == block) & (row.thread[row.lanes] // WARP == warp)
            if not mine.any():
                continue
            turns[row.pc] = turns.get(row.pc, 0) + 1
            number += 1
            yield self._step(row, mine, number, turns[row.pc], flight)

    def counts(self) -> Counts:
        """The sums over all warps, by the rules of core.sim.counting."""
        total = Counts()
        for block, warp in self.warps:
            for step in self.steps(block, warp):
                ins = self.program.instructions[step.pc]
                lanes = step.lanes.bit_count()
                total += Counts(instructions=1, threads=lanes, flops=round(flops_of(ins) * lanes))
                for a in step.accesses:
                    count = sum(i >= 0 for i in a.places)
                    if ins.names[0] in ATOMICS:
                        total += Counts(atomics=1, contended=a.turns)
                    if a.space == "global":
                        total += Counts(requests=1, asked=a.width * count, sectors=a.sectors, fewest=a.needed)
                    elif a.space == "shared":
                        total += Counts(shared=1, shared_bytes=a.width * count, conflicts=max(0, a.passes))
        return total

    def _step(self, row: TapeRow, mine: Array, number: int, turn: int, flight: _Flight) -> TapeStep:
        ins, lanes = self.program.instructions[row.pc], row.lanes[mine]
        within = row.thread[lanes] % WARP
        on = np.isin(lanes, row.on)
        result = first_result(ins)
        values = source = None
        if row.values is not None:
            values = _by_lane(within, row.values[mine], None)
        if row.source is not None:
            source = _by_lane(within, row.thread[row.source[mine]] % WARP, -1)
        copy = copies(self.program)[row.pc]
        return TapeStep(
            number, row.pc, ins.text, ins.location, _mask(within), _mask(within[on]), turn, copy,
            tuple(self._access(ins, t, row, lanes) for t in row.touched if np.isin(t.lanes, lanes).any()),
            result.name if result is not None else "", values, source, ins.names[0] in WAITS, flight.after(ins),
        )  # fmt: skip

    def _access(self, ins: Instruction, t: RowAccess, row: TapeRow, lanes: Array) -> WarpAccess:
        chosen = np.isin(t.lanes, lanes)
        at, places = t.lanes[chosen], t.places[chosen]
        within = row.thread[at] % WARP
        found = self.words.array(ins, t.space, int(places[0]), t.how) if t.space != "local" else None
        start, item = (found.start, found.item) if found else (0, t.width)
        index = (places - start) // item
        one = np.zeros(len(places), np.int64)
        moved = needed = passes = 0
        if t.space == "global":
            moved, needed = len(sectors(one, places)), fewest(one, places, t.width)
        elif t.space == "shared" and ins.names[0] in BY_LANE:
            passes = conflicts(within, places, t.width)
        name = found.name if found else {"local": "the thread's local memory"}.get(t.space, t.space)
        turns = contended(one, places) if ins.names[0] in ATOMICS else 0
        return WarpAccess(
            t.space, t.how, t.width, name, item, _first(within, index), _first(within, places), moved, needed, passes,
            turns,
        )  # fmt: skip


@kept
def copies(program: Program) -> list[int]:
    """Of each instruction, which of its source line's instructions of the same kind it is, from 1: a loop that the
    compiler unrolled has one a turn."""
    seen: dict[tuple[Location, tuple[str, ...]], int] = {}
    found = []
    for ins in program.instructions:
        key = ins.location, ins.names
        seen[key] = seen.get(key, 0) + 1
        found.append(seen[key])
    return found


@dataclass
class _Flight:
    """Counts a warp's cp.async groups, and the copies since the last commit as one more."""

    groups: int = 0
    open: bool = False

    def after(self, ins: Instruction) -> int:
        if ins.names[:2] == ("cp", "async") and "bulk" not in ins.names:
            kind = ins.names[2] if len(ins.names) > 2 else ""
            if kind == "commit_group":
                self.groups, self.open = self.groups + 1, False
            elif kind == "wait_all":
                self.groups, self.open = 0, False
            elif kind == "wait_group":
                left = ins.operands[0].bits if isinstance(ins.operands[0], Immediate) else 0
                self.groups = min(self.groups, left)
            else:
                self.open = True
        return self.groups + self.open


def _mask(lanes: Array) -> int:
    return sum(1 << int(lane) for lane in lanes)


def _by_lane(lanes: Array, values: Array, empty: Any) -> tuple[Any, ...]:
    found = [empty] * WARP
    for lane, value in zip(lanes.tolist(), values.tolist(), strict=True):
        found[lane] = value
    return tuple(found)


def _first(lanes: Array, values: Array) -> tuple[int, ...]:
    """By lane, the first of its values: a lane of a matrix load stands for a row."""
    found = [-1] * WARP
    for lane, value in zip(lanes.tolist(), values.tolist(), strict=True):
        if found[lane] < 0:
            found[lane] = value
    return tuple(found)
