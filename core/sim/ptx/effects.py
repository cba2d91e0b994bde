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
    registers: set[int] = set()
    for operand in operands:
        if isinstance(operand, Register) and operand.name != "_":
            registers.add(program.number(operand))
        elif isinstance(operand, Vector):
            registers |= numbers(program, operand.parts)
        elif isinstance(operand, Address):
            registers |= numbers(program, [operand.base])
        elif isinstance(operand, Pair):
            registers |= numbers(program, [operand.first, operand.second])
        elif isinstance(operand, Negated):
            registers |= numbers(program, [operand.operand])
    return registers


def uses_wgmma(program: Program) -> bool:
    return any(i.names[:2] == ("wgmma", "mma_async") for i in program.instructions)


def wgmma_registers(program: Program) -> set[int]:
    """All registers that some wgmma of the kernel touches as accumulator or as A, and those that they are moved from or
    to."""
    registers: set[int] = set()
    for i in program.instructions:
        if i.names[:2] == ("wgmma", "mma_async"):
            registers |= numbers(program, [o for o in i.operands[:2] if isinstance(o, Vector)])
    moves = [numbers(program, i.operands) for i in program.instructions if is_move(i)] if registers else []
    size = -1
    while size != len(registers):
        size = len(registers)
        for pair in moves:
            registers |= pair if not pair.isdisjoint(registers) else set()
    return registers


def is_move(ins: Instruction) -> bool:
    """A plain move of one register, or of a constant into one."""
    return ins.names[0] == "mov" and not any(isinstance(operand, Vector) for operand in ins.operands)
