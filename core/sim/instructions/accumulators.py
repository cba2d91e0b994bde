"""Strict mode's registers of wgmma: which are in use, and which accesses a wgmma.fence must still order.

PTX ISA, wgmma.fence: it is needed before the first wgmma of a kernel, and between an access to a register by its thread
(a read too, as an epilogue's) and a wgmma that uses it, as accumulator or as A. Only accumulators that wgmma of one
shape hand on to each other need none.

Values are followed, not registers: compilers rename with moves, which vanish when registers are assigned. A copy is the
value that it copies, and is neither a read nor a write of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.sim.instructions.operands import Step, elements
from core.sim.ptx.parser import Address, Instruction, Negated, Operand, Pair, Register, Vector

if TYPE_CHECKING:
    from core.sim.machine.group import Group
    from core.sim.ptx.program import Program

OPEN = -1  # a wgmma that no commit has put into a group yet
WRITES_NOTHING = ("st", "red", "bar", "barrier", "fence", "membar", "cp", "wgmma", "stmatrix", "prefetch", "bra")
FENCE = "wgmma.fence after the last access to the registers and before the first wgmma that uses them"


@dataclass
class Registers:
    """wgmma's registers of a group of threads: those in use by groups not waited for, and what is not fenced."""

    busy: dict[int, int] = field(default_factory=dict)  # accumulators: register -> commit group, OPEN before commit
    sources: dict[int, int] = field(default_factory=dict)  # A's registers, which may be read but not written
    commits: int = 0
    fenced: bool = False  # there was a wgmma.fence
    values: dict[int, int] = field(default_factory=dict)  # register -> the value in it
    touched: set[int] = field(default_factory=set)  # values that were accessed since the last fence
    shapes: dict[int, str] = field(default_factory=dict)  # accumulators: value -> the shape of its wgmma since then
    fresh: itertools.count[int] = field(default_factory=itertools.count)

    def commit(self) -> None:
        for table in (self.busy, self.sources):
            for register, number in table.items():
                table[register] = self.commits if number == OPEN else number
        self.commits += 1

    def wait(self, keep: int) -> None:
        for table in (self.busy, self.sources):
            for register in [r for r, n in table.items() if n != OPEN and n < self.commits - keep]:
                del table[register]

    def fence(self) -> None:
        self.fenced = True
        self.touched.clear()
        self.shapes.clear()

    def value(self, register: int) -> int:
        if register not in self.values:
            self.values[register] = next(self.fresh)
        return self.values[register]

    def access(self, read: Iterable[int], written: Iterable[int]) -> None:
        self.touched |= {self.value(register) for register in read}
        for register in written:
            self.values[register] = next(self.fresh)
            self.touched.add(self.values[register])

    def unfenced(self, accumulators: set[int], sources: set[int], shape: str) -> str:
        """What a wgmma lacks a fence for, in words; "" for nothing."""
        if not self.fenced:
            return "the first wgmma of a kernel comes before any wgmma.fence"
        if not self.touched.isdisjoint(self.value(r) for r in accumulators | sources):
            return "a wgmma uses registers that were read or written since the last wgmma.fence"
        summed = {self.shapes.get(self.value(r)) for r in accumulators} - {None, shape}
        if summed or any(self.value(r) in self.shapes for r in sources):
            return "a wgmma uses accumulators of one of another shape, or as its A, with no wgmma.fence between"
        self.shapes |= {self.value(r): shape for r in accumulators}
        return ""


def numbers(program: Program, operands: Iterable[Operand]) -> set[int]:
    """The registers that operands name."""
    found: set[int] = set()
    for operand in operands:
        if isinstance(operand, Register) and operand.name != "_":
            found.add(program.number(operand))
        elif isinstance(operand, Vector):
            found |= numbers(program, operand.parts)
        elif isinstance(operand, Address):
            found |= numbers(program, [operand.base])
        elif isinstance(operand, Pair):
            found |= numbers(program, [operand.first, operand.second])
        elif isinstance(operand, Negated):
            found |= numbers(program, [operand.operand])
    return found


def uses_wgmma(program: Program) -> bool:
    return any(i.names[:2] == ("wgmma", "mma_async") for i in program.instructions)


def wgmma_registers(program: Program) -> set[int]:
    """All registers that some wgmma of the kernel touches as accumulator or as A, and those that they are moved from or
    to."""
    found: set[int] = set()
    for i in program.instructions:
        if i.names[:2] == ("wgmma", "mma_async"):
            found |= numbers(program, [o for o in i.operands[:2] if isinstance(o, Vector)])
    moves = [numbers(program, i.operands) for i in program.instructions if is_move(i)] if found else []
    size = -1
    while size != len(found):
        size = len(found)
        for pair in moves:
            found |= pair if not pair.isdisjoint(found) else set()
    return found


def is_move(ins: Instruction) -> bool:
    """A plain move of one register, or of a constant into one."""
    return ins.names[0] == "mov" and not any(isinstance(operand, Vector) for operand in ins.operands)


def guarded(program: Program, ins: Instruction, step: Step, special: set[int]) -> Step:
    """An instruction of a kernel with wgmma: in strict mode it may not touch registers that a wgmma still uses."""
    if ins.names[0] == "wgmma":
        return _guarded_wgmma(program, ins, step) if ins.names[1] == "mma_async" else step
    touched = numbers(program, ins.operands) & special
    if not touched:
        return step
    if is_move(ins):
        return _guarded_move(program, ins, step)
    first = ins.operands[:1] if ins.names[0] not in WRITES_NOTHING else ()
    written = numbers(program, [part for operand in first for part in elements(operand)]) & special
    read = (numbers(program, ins.operands[len(first) :]) | (touched - written)) & special

    def guard(g: Group) -> None:
        if g.batch.watch is not None:
            r = g.wgmma
            if not touched.isdisjoint(r.busy) or not written.isdisjoint(r.sources):
                raise g.batch.fault(
                    ins, "wgmma registers", "a register of a wgmma is touched before wgmma.wait_group", g,
                    int(g.indices()[0]),
                )  # fmt: skip
            r.access(read, written)
        step(g)

    return guard


def _guarded_move(program: Program, ins: Instruction, step: Step) -> Step:
    """A copy is as busy as what it copies, and the same value; a constant counts as untouched."""
    (to,) = numbers(program, [ins.operands[0]])
    of = numbers(program, [ins.operands[1]])

    def move(g: Group) -> None:
        r = g.wgmma
        if g.batch.watch is not None:
            if not of.isdisjoint(r.busy):
                r.busy[to] = max(r.busy[n] for n in of & r.busy.keys())
            r.values[to] = r.value(*of) if of else next(r.fresh)
        step(g)

    return move


def _guarded_wgmma(program: Program, ins: Instruction, step: Step) -> Step:
    accumulators = numbers(program, [ins.operands[0]])
    sources = numbers(program, [ins.operands[1]]) if isinstance(ins.operands[1], Vector) else set()
    shape = ins.names[4]

    def guard(g: Group) -> None:
        if g.batch.watch is not None:
            r = g.wgmma
            lacking = r.unfenced(accumulators, sources, shape)
            if lacking:
                raise g.batch.fault(ins, "wgmma fence", lacking, g, int(g.indices()[0]), hint=FENCE)
            r.busy |= dict.fromkeys(accumulators, OPEN)
            r.sources |= dict.fromkeys(sources, OPEN)
        step(g)

    return guard
