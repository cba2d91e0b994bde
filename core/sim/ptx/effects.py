"""The registers that an instruction names, and those that some wgmma of a kernel uses."""

from __future__ import annotations

from collections.abc import Iterable

from core.sim.ptx.program import Program
from core.sim.ptx.syntax import Address, Instruction, Negated, Operand, Pair, Register, Vector

WRITES_NOTHING = ("st", "red", "bar", "barrier", "fence", "membar", "cp", "wgmma", "stmatrix", "prefetch", "bra")


def elements(operand: Operand) -> tuple[Operand, ...]:
    """The parts of {a, b}, or the operand itself."""
    return operand.parts if isinstance(operand, Vector) else (operand,)


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
