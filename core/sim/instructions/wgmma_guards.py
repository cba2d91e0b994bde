"""Strict mode's guards of wgmma's registers, around every instruction of a kernel with wgmma.

The rules are in machine/wgmma_registers.py.
"""

from __future__ import annotations

from core.sim.instructions.operands import Step
from core.sim.machine.wgmma_registers import OPEN
from core.sim.ptx.effects import WRITES_NOTHING, elements, is_move, numbers
from core.sim.ptx.program import Program
from core.sim.ptx.syntax import Instruction, Vector
from core.sim.resident import Group

FENCE = "wgmma.fence after the last access to the registers and before the first wgmma that uses them"


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
    """A copy is as busy as its source, and the same value; a constant counts as untouched."""
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
