"""Strict mode's undefined values in registers: those of a load of unwritten shared memory, or of an invalid shuffle.

Such a value is no fault until it is used: a select, a branch or an index may well leave it out (`t < n ? s[t] : 0`). It
is followed from register to register, lane by lane, and reported where it is stored, is an address, or decides where
lanes go: with the line that brought it in.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.sim.faults import KernelError
from core.sim.machine.lanes import Lanes, Mark, Origin
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.ptx.block import Block
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES, Array
from core.sim.ptx.syntax import Address, Instruction, Negated, Operand, Pair, Register, Vector

MOVES = {"mov", "cvta", "isspacep", "mapa", "getctarank", "movmatrix"}
LOADS = {"ld", "ldu"}


def registers(operand: Operand) -> Iterator[Register]:
    if isinstance(operand, Register):
        yield operand
    elif isinstance(operand, Vector):
        for part in operand.parts:
            yield from registers(part)
    elif isinstance(operand, Pair):
        yield from registers(operand.first)
        yield from registers(operand.second)
    elif isinstance(operand, Negated):
        yield from registers(operand.operand)
    elif isinstance(operand, Address):
        yield from registers(operand.base)
        if operand.coordinates is not None:
            yield from registers(operand.coordinates)


class Undefined:
    """Follows the undefined values of a batch. Those of a group are in its `undefined`: register -> Mark."""

    def __init__(self, batch: ResidentBlocks) -> None:
        self.batch = batch
        self.program: Program = batch.program
        self.brought: list[tuple[Array, Origin]] = []  # by the instruction at work: [lane of the group, result]
        self.local: dict[int, tuple[Array, Origin]] = {}  # group -> bytes of its local memory that are undefined
        self.touched: list[tuple[Array, Array]] = []  # local memory that the instruction at work touches: bytes, lanes

    # ------------------------------------------------------------------ sources of values
    def loaded(self, g: Lanes, ins: Instruction, bad: Array, lanes: Array, grain: int, origin: Origin) -> None:
        """A load has read grains that nothing wrote. bad: by grain, in the order of lanes; lanes: of each grain."""
        width = TYPES[ins.names[-1]].bytes
        count = len(list(registers(ins.operands[0]))) if isinstance(ins.operands[0], Vector) else 1
        mask = np.zeros((g.lanes, count), np.bool_)
        parts = np.asarray(bad.reshape(-1, count, max(1, width // grain)).any(2))
        mask[lanes.reshape(len(parts), -1)[:, 0]] = parts
        self.brought.append((mask, origin))

    def shuffled(self, g: Lanes, ins: Instruction, place: Array, good: Array, masks: Array) -> None:
        """A shuffle has given each lane the value of lane `place`. masks: of the lanes concerned.

        PTX ISA, shfl.sync: results are undefined if a thread sources a register from an inactive thread, or from one
        that is not in membermask; out of range (not `good`), a lane keeps its own.
        """
        here, named = g.active(), np.zeros(g.lanes, np.uint32)
        named[g.indices()] = masks
        absent, unnamed = ~here[place], named >> (place % 32).astype(np.uint32) & 1 == 0
        bad = here & good & (absent | unnamed)
        if bad.any():

            def fault(lane: int, used: str) -> KernelError:
                lane = lane if bad[lane] else int(np.flatnonzero(bad)[0])
                beyond = g.thread[place[lane]] >= self.batch.threads
                why = f"its mask {int(named[lane]):#x} does not name" if unnamed[lane] else "has exited"
                why = "the thread block does not have" if beyond else why
                text = f"{{who}} takes the value of lane {int(place[lane]) % 32}, which {why}{used}"
                hint = "use only values from lanes in the mask: compare the lane's number first"
                return self.batch.fault(ins, "shuffle", text, g, lane, hint=hint)

            self.brought.append((bad[:, None], Origin(ins, fault)))
        for number in self._numbers(ins.operands[1]):
            mark = g.undefined.get(number)
            if mark is not None and (marked := mark.lanes[place] & here[place] & here).any():
                self.brought.append((marked[:, None], mark.origin))

    # ------------------------------------------------------------------ following
    def run(self, g: Lanes, block: Block) -> None:
        """Run a block's instructions but for its last, control one, and its condition."""
        code, at = self.program.instructions, block.start
        for step, covers in zip(block.steps, block.covers, strict=True):
            step(g)
            if g.undefined or self.brought or (self.touched and self.local):
                for ins in code[at : at + covers]:
                    self._follow(g, ins)
            at += covers
            self.touched.clear()
        if g.undefined and at < block.stop:
            ins = code[at]
            operands = ins.operands[ins.names[0] == "mbarrier" :]
            for operand in (*([ins.predicate] if ins.predicate else []), *operands):
                self._used(g, ins, operand, g.active())

    def _follow(self, g: Lanes, ins: Instruction) -> None:
        """An instruction has run: the sources of its results."""
        active = self._concerned(g, ins)
        names, brought = ins.names, self.brought
        self.brought = []
        if names[0] in LOADS:
            self._used(g, ins, ins.operands[1], active)
            self._loaded_locally(g, ins)
            brought += self.brought
            self.brought = []
            self._put(g, ins, active, brought)
        elif names[:2] == ("shfl", "sync"):
            for operand in ins.operands[2:]:
                self._used(g, ins, operand, active)
            self._put(g, ins, active, brought)
        elif not ins.operands:
            pass
        elif self._is_pure(ins):
            self._put(g, ins, active, self._made_of(g, ins))
        else:
            locally, returns = names[0] == "st" and bool(self.touched), not isinstance(ins.operands[0], Address)
            for operand in ins.operands[int(returns) : 1 if locally else None]:
                self._used(g, ins, operand, active)
            if locally:
                self._stored_locally(g, ins)
            elif returns:
                self._put(g, ins, active, [])

    def _concerned(self, g: Lanes, ins: Instruction) -> Array:
        active = g.active()
        if ins.predicate is None:
            return active
        self._used(g, ins, ins.predicate, active)
        holds = g.whole(self.program.number(ins.predicate))
        return np.asarray(active & (holds != ins.negated))

    def _used(self, g: Lanes, ins: Instruction, operand: Operand, active: Array) -> None:
        for number in self._numbers(operand):
            mark = g.undefined.get(number)
            if mark is not None and (mark.lanes & active).any():
                lane = int(np.flatnonzero(mark.lanes & active)[0])
                line = self.batch.words.line(ins.location)
                distinct = ins.location != mark.origin.ins.location
                raise mark.origin.fault(lane, f"; the value is used in {line}" if distinct else "")

    def _made_of(self, g: Lanes, ins: Instruction) -> list[tuple[Array, Origin]]:
        """The undefined lanes of a result of registers; an operand that decides the result alone leaves none."""
        marks = [[g.undefined[n] for n in self._numbers(o) if n in g.undefined] for o in ins.operands[1:]]
        undefined = [(i, m) for i, some in enumerate(marks) for m in some]
        if not undefined:
            return []
        visible = np.ones(g.lanes, np.bool_)
        if ins.names[0] == "selp":
            chosen = self._value(g, ins.operands[3])
            return [(m.lanes & (chosen if i == 0 else ~chosen if i == 1 else visible), m.origin) for i, m in undefined]
        neutral = self._deciding(ins)
        for i, operand in enumerate(ins.operands[1:]) if neutral is not None else ():
            # Of a comparison, only the predicate that it is combined with decides alone.
            if not marks[i] and (i == 2 or ins.names[0] not in ("set", "setp")):
                visible = visible & (self._value(g, operand) != neutral)
        return [(m.lanes & visible, m.origin) for _, m in undefined]

    def _deciding(self, ins: Instruction) -> int | None:
        """The operand beside which the others do not count: 0 of `and`, true of `or`."""
        words = set(ins.names)
        if "and" in words:
            return 0
        return 1 if "or" in words and ("setp" in words or "pred" in words) else None

    def _value(self, g: Lanes, operand: Operand) -> Array:
        """A register's bits over all lanes; of anything else, ones."""
        if isinstance(operand, Negated):
            return ~self._value(g, operand.operand)
        if isinstance(operand, Register):
            return g.whole(self.program.number(operand))
        return np.ones(g.lanes, np.bool_)

    def _put(self, g: Lanes, ins: Instruction, active: Array, marks: list[tuple[Array, Origin]]) -> None:
        """The results of an instruction are undefined in the lanes found, and defined in the others that it ran in."""
        for place, number in enumerate(self._numbers(ins.operands[0]) if ins.operands else ()):
            before = g.undefined.pop(number, None)
            lanes = np.zeros(g.lanes, np.bool_) if before is None else before.lanes & ~active
            origin = before.origin if before is not None and lanes.any() else None
            for columns, source in marks:
                column = columns if columns.ndim == 1 else columns[:, min(place, columns.shape[1] - 1)]
                if (column & active).any():
                    lanes, origin = lanes | (column & active), source
            if origin is not None:
                g.undefined[number] = Mark(lanes, origin)

    # ------------------------------------------------------------------ local memory
    def _stored_locally(self, g: Lanes, ins: Instruction) -> None:
        """Arrays and spilled registers: a value may stay in local memory for a while."""
        marks = [g.undefined[n] for n in self._numbers(ins.operands[1]) if n in g.undefined]
        if marks and g.number not in self.local:
            self.local[g.number] = np.zeros(self.batch.local_memory(g).size, np.bool_), marks[0].origin
        if g.number in self.local:
            stained, _ = self.local[g.number]
            for index, lanes in self.touched:
                bad = np.zeros(len(lanes), np.bool_)
                for mark in marks:
                    bad = bad | mark.lanes[lanes]
                stained[index] = bad[:, None]

    def _loaded_locally(self, g: Lanes, ins: Instruction) -> None:
        if g.number not in self.local:
            return
        stained, origin = self.local[g.number]
        for index, lanes in self.touched:
            mask = np.zeros(g.lanes, np.bool_)
            mask[lanes] = stained[index].any(1)
            self.brought.append((mask, origin))

    def local_access(self, g: Lanes, index: Array, lanes: Array, width: int) -> None:
        if not (g.undefined or self.local):
            return
        self.touched.append((np.broadcast_to(index, (len(lanes),))[:, None] + np.arange(width), lanes))

    # ------------------------------------------------------------------ instructions
    def _numbers(self, operand: Operand) -> list[int]:
        return [self.program.numbers[r.name] for r in registers(operand) if r.name in self.program.numbers]

    def _is_pure(self, ins: Instruction) -> bool:
        """Whether an instruction only computes registers of registers."""
        return id(ins) in self.program.pure or ins.names[0] in MOVES
