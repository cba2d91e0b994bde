"""Records the rows of a tape: an instruction as one group of lanes ran it, for the requested thread blocks.

A `TapeRecorder` watches one batch, as core.sim.counting's Counter does. It changes nothing that a kernel computes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from core.sim.counting import WARP
from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.machine.warps import shuffled_from
from core.sim.ptx.block import Block
from core.sim.ptx.effects import elements
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Immediate, Instruction, Operand, Pair, Register

LARGEST = 8_000_000  # lane-instructions that a tape holds; a launch beyond that is for fewer blocks, or smaller
NO_RESULT = {"bar", "barrier", "bra", "ret", "exit", "fence", "membar", "stmatrix", "mbarrier", "cp", "prefetch"}
STORES = {"st", "red"}


@dataclass(frozen=True)
class LanesHere:
    """The lanes of a group that came to an instruction. warps: (thread block in the grid, warp in it) of each warp
    among them; starts: where its lanes begin in `lanes`, and last the end."""

    lanes: Array
    warps: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class RowAccess:
    """An access of some lanes of a row. space: global, shared or local; lanes: of the group, one of them several times
    where it moves several pieces; places: byte addresses of pieces of `width` bytes (of shared and local memory: in
    the thread block's or thread's own)."""

    space: str
    how: str
    width: int
    lanes: Array
    places: Array


@dataclass(frozen=True)
class Visit:
    """Lanes of a row at a barrier of a thread block, of a cluster, or at an mbarrier.

    kind: "barrier", "cluster", or of an mbarrier "arrive", "wait", or "copy" for a copy whose bytes it counts. block:
    the thread block whose barrier it is; place: its number, or its byte of shared memory. arrived: threads that have
    come in this phase, these included, of `expected`. bytes_left: of copies. complete: the phase is over.
    """

    kind: str
    lanes: tuple[int, ...]
    block: int
    place: int
    arrived: int = 0
    expected: int = 0
    bytes_left: int = 0
    complete: bool = False


@dataclass
class TapeRow:
    """An instruction as one group of lanes ran it.

    on: of the lanes that came, whether the predicate lets each run; None: all. values: of the first result, or of a
    store the first value that it stores, one each of the lanes that came, or one for all. source: the lane that each
    read in a shuffle.
    """

    pc: int
    here: LanesHere
    on: Array | None = None
    touched: list[RowAccess] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    values: Array | None = None
    source: Array | None = None


class TapeRecorder:
    """Watches one batch: `run` runs a block's instructions, `access` sees every access, `visits` every barrier.

    wanted: numbers of thread blocks in the grid; None for all.
    """

    def __init__(self, batch: ResidentBlocks, wanted: Collection[int] | None = None) -> None:
        self.batch = batch
        self.numbers = np.asarray(batch.numbers)
        chosen = np.ones(len(self.numbers), np.bool_) if wanted is None else np.isin(self.numbers, list(wanted))
        self.chosen = None if chosen.all() else chosen
        self.rows: list[TapeRow] = []
        self.current: list[TapeRow] = []  # of the step that runs
        self.held = 0

    def run(self, g: Lanes, block: Block) -> None:
        """Run a block's instructions but for its last, control one, row by row."""
        at, code = block.start, self.batch.program.instructions
        here = self._here(g)
        self.current = []
        for step, covers in zip(block.steps, block.covers, strict=True):
            if here is not None:
                self.current = [self._row(g, here, pc) for pc in range(at, at + covers)]
            step(g)
            for row in self.current:
                row.values = self._values(g, row, code[row.pc])
            at += covers
        if at < block.stop and here is not None:
            self.current = [self._row(g, here, at)]

    def access(self, g: Lanes, ins: Instruction, space: str, index: Array, lanes: Array, width: int, how: str) -> None:
        """`width` bytes of each lane at `index`, a place in its space; one place where all lanes share it."""
        if not self.current or not {"param", "const"}.isdisjoint(n.partition(":")[0] for n in ins.names):
            return
        places = np.broadcast_to(index, (len(lanes),)).astype(np.int64)
        if space == "shared":
            places = places % self.batch.stride
        elif space == "local":
            places = places - lanes * self.batch.local_stride
        if self.chosen is not None:
            chosen = self.chosen[g.block[lanes]]
            lanes, places = lanes[chosen], places[chosen]
        if len(lanes):
            self._row_of(ins).touched.append(RowAccess(space, how, width, lanes.copy(), places))

    def visits(
        self, kind: str, lanes: Array, block: int, place: int, arrived: int = 0, expected: int = 0, bytes_left: int = 0,
        complete: bool = False,
    ) -> None:  # fmt: skip
        """Lanes at a barrier of thread block `block` of the batch; the state after them."""
        if not self.current:
            return
        held = self.current[-1].visits
        own = tuple(lanes.tolist())
        one = Visit(kind, own, int(self.numbers[block]), place, arrived, expected, bytes_left, complete)
        last = held[-1] if held else None
        same = last is not None and (last.kind, last.block, last.place) == (kind, one.block, place)
        if last is not None and same and (last.complete == complete if kind == "wait" else not last.complete):
            held[-1] = replace(one, lanes=last.lanes + own)
        else:
            held.append(one)

    def _here(self, g: Lanes) -> LanesHere | None:
        lanes = g.indices()
        if self.chosen is not None:
            lanes = lanes[self.chosen[g.block[lanes]]]
        if not len(lanes):
            return None
        starts = np.flatnonzero(np.diff(lanes // WARP, prepend=-1))
        first = lanes[starts]
        warps = zip(self.numbers[g.block[first]].tolist(), (g.thread[first] // WARP).tolist(), strict=True)
        return LanesHere(lanes.copy(), tuple(warps), (*starts.tolist(), len(lanes)))

    def _row(self, g: Lanes, here: LanesHere, pc: int) -> TapeRow:
        ins = self.batch.program.instructions[pc]
        self.held += len(here.lanes)
        if self.held > LARGEST:
            raise self.batch.fault(
                ins, "tape", f"a tape holds {LARGEST:,} instructions of threads, and this launch takes more", g,
                int(here.lanes[0]), hint="tape some thread blocks, tape=[0], or a smaller example",
            )  # fmt: skip
        row = TapeRow(pc, here)
        if ins.predicate is not None:
            chosen = g.whole(self.batch.program.number(ins.predicate))[here.lanes].astype(np.bool_)
            row.on = chosen != ins.negated
        if ins.names[0] == "shfl":
            offset, clamp = (self._operand(g, o) for o in ins.operands[2:4])
            row.source = shuffled_from(ins.names[2], g.lanes, offset, clamp)[0][here.lanes]
        self.rows.append(row)
        return row

    def _row_of(self, ins: Instruction) -> TapeRow:
        """The row of this instruction among those that one step runs together."""
        code = self.batch.program.instructions
        return next((row for row in self.current if code[row.pc] is ins), self.current[-1])

    def _values(self, g: Lanes, row: TapeRow, ins: Instruction) -> Array | None:
        register = shown_register(ins)
        if register is None:
            return None
        kind, number = self.batch.program.kind(register), self.batch.program.number(register)
        held = g.registers[number]
        bits = held.copy() if held.size == 1 else held[row.here.lanes]
        return bits if kind.numpy == bits.dtype else np.ascontiguousarray(bits).view(kind.numpy)

    def _operand(self, g: Lanes, operand: Operand) -> Array:
        if isinstance(operand, Register):
            return np.asarray(g.whole(self.batch.program.number(operand))).view(np.uint32)
        bits = operand.bits if isinstance(operand, Immediate) else 0
        return np.full(g.lanes, bits & 0xFFFFFFFF, np.uint32)


def shown_register(ins: Instruction) -> Register | None:
    """The register that an instruction writes, the first of several; of a store, the first that it stores."""
    if ins.names[0] in NO_RESULT or len(ins.operands) < 1:
        return None
    operand = ins.operands[-1 if ins.names[0] in STORES else 0]
    first = operand.first if isinstance(operand, Pair) else next(iter(elements(operand)), None)
    return first if isinstance(first, Register) and first.name != "_" else None
