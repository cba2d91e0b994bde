"""Roots of a kernel's addresses: the parameter or variable that each access is based on.

Instructions are followed backwards from the address, through all arithmetic on pointers. Findings name an access by its
root ("x[1]"), and strict mode skips reads of memory that the kernel never writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.sim.ptx.effects import WRITES_NOTHING, elements, numbers
from core.sim.ptx.program import Program, per_program
from core.sim.ptx.state_spaces import space_of
from core.sim.ptx.syntax import Address, Immediate, Instruction, Operand, Register, Symbol

INDEX = ("cvt", "mul", "special", "setp", "shl", "shr", "rem", "div")  # instructions that make no pointer of another


@dataclass(frozen=True)
class Root:
    """A parameter (with the offset in it), a variable, or something that was loaded from memory ("unknown")."""

    kind: str  # param, variable, unknown
    name: str = ""
    offset: int = 0


UNKNOWN = Root("unknown")


@per_program
def writers(program: Program) -> dict[int, list[Instruction]]:
    """Register -> the instructions that write it."""
    by_register: dict[int, list[Instruction]] = {}
    for ins in program.instructions:
        if ins.operands and ins.names[0] not in WRITES_NOTHING:
            for register in numbers(program, elements(ins.operands[0])):
                by_register.setdefault(register, []).append(ins)
    return by_register


def address_of(ins: Instruction, written: bool | None = None) -> Address | None:
    """The operand by which an instruction reaches memory; of a copy, the one that is `written`, or read."""
    addresses = [o for o in ins.operands if isinstance(o, Address)]
    if not addresses:
        return None
    return addresses[1] if written is False and ins.names[0] == "cp" and len(addresses) > 1 else addresses[0]


def roots(program: Program, ins: Instruction, written: bool | None = None) -> frozenset[Root]:
    """The roots of an access's address, at least one."""
    address = address_of(ins, written)
    return (address is not None and _Search(program).of(address.base)) or frozenset({UNKNOWN})


@per_program
def roots_read(program: Program) -> dict[int, frozenset[Root]]:
    """The roots of reads by instruction (ids), those computed so far."""
    return {}


def read_roots(program: Program, ins: Instruction) -> frozenset[Root]:
    """The roots of the address that an instruction reads, searched for once."""
    by_read = roots_read(program)
    if id(ins) not in by_read:
        by_read[id(ins)] = roots(program, ins, written=False)
    return by_read[id(ins)]


class _Search:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.seen: set[int] = set()

    def of(self, operand: Operand) -> frozenset[Root]:
        if isinstance(operand, Symbol):
            space = self.program.places.get(operand.name, ("", 0))[0]
            return frozenset({Root("variable", operand.name)} if space in ("shared", "global") else {UNKNOWN})
        roots_of: set[Root] = set()
        for register in numbers(self.program, [operand]):
            if register not in self.seen:
                self.seen.add(register)
                for ins in writers(self.program).get(register, []):
                    roots_of |= self._through(ins)
        return frozenset(roots_of)

    def _through(self, ins: Instruction) -> frozenset[Root]:
        name = ins.names[0]
        if name in ("ld", "ldu"):
            return self._loaded(ins)
        if name in ("atom", "shfl"):
            return frozenset({UNKNOWN}) if ins.names[-1][1:] == "64" else frozenset()
        if name in INDEX:
            return frozenset()
        if name == "mov" and len(elements(ins.operands[1])) > 1:  # put together from halves
            return frozenset({UNKNOWN})
        sources = frozenset[Root]()
        # mad: only the addend is a pointer
        for operand in ins.operands[3:] if name in ("mad", "fma") else ins.operands[1:]:
            if not isinstance(operand, Immediate):
                sources |= self.of(operand) if isinstance(operand, Register | Symbol) else frozenset()
        return sources

    def _loaded(self, ins: Instruction) -> frozenset[Root]:
        address = ins.operands[1]
        assert isinstance(address, Address)
        if space_of(ins.names) == "param" and isinstance(address.base, Symbol):
            symbol = address.base
            if self.program.places.get(symbol.name, ("", 0))[0] == "param":
                start, count = symbol.offset + address.offset, len(elements(ins.operands[0]))
                return frozenset(Root("param", symbol.name, start + 8 * i) for i in range(count))
            return self._passed(symbol)
        return frozenset({UNKNOWN}) if ins.names[-1][1:] == "64" else frozenset()

    def _passed(self, symbol: Symbol) -> frozenset[Root]:
        """The argument of a function that was inlined."""
        sources = frozenset[Root]()
        for ins in self.program.instructions:
            to = address_of(ins) if ins.names[:2] == ("st", "param") else None
            if to is not None and isinstance(to.base, Symbol) and to.base.name == symbol.name:
                for operand in elements(ins.operands[1]):
                    sources |= self.of(operand)
        return sources or frozenset({UNKNOWN})


# ------------------------------------------------------------------ the writes of a kernel
WRITING = ("st", "atom", "red", "cp", "stmatrix")


@per_program
def stored(program: Program) -> frozenset[Root]:
    """The roots of the kernel's writes to global memory."""
    written: set[Root] = set()
    for ins in program.instructions:
        if ins.names[0] not in WRITING or "prefetch" in ins.names:
            continue
        space = space_of(ins.names)
        if ins.names[0] == "cp" and "bulk" in ins.names and "global" in ins.names:
            written |= {UNKNOWN} if "tensor" in ins.names else roots(program, ins, written=True)
        elif ins.names[0] != "cp" and space in ("global", "generic"):
            written |= roots(program, ins)
    return frozenset(written)


# ------------------------------------------------------------------ loops around atomicCAS
@per_program
def first_guesses(program: Program) -> frozenset[int]:
    """Plain loads (ids) that only give a loop of atomicCAS its first guess, as CUDA's guide writes it.

    The value that such a load finds may be old or new: the compare-and-swap at the same address decides.
    """
    guesses: set[int] = set()
    for ins in program.instructions:
        if ins.names[0] != "atom" or "cas" not in ins.names:
            continue
        place = _place(program, ins.operands[1])
        todo, seen = list(numbers(program, [ins.operands[2]])), set[int]()
        while todo:
            register = todo.pop()
            if register in seen:
                continue
            seen.add(register)
            for one in writers(program).get(register, []):
                if one.names[0] == "ld" and _place(program, one.operands[1]) == place:
                    guesses.add(id(one))
                elif one.names[0] == "mov":
                    todo += numbers(program, [one.operands[1]])
    return frozenset(guesses)


def _place(program: Program, operand: Operand) -> tuple[object, int]:
    """The meaning of an address operand: its base, followed through plain renamings, and the offset."""
    assert isinstance(operand, Address)
    base = operand.base
    while isinstance(base, Register):
        made = writers(program).get(program.number(base), [])
        if len(made) != 1 or made[0].names[0] not in ("mov", "cvta"):
            break
        base = made[0].operands[1]
    return base, operand.offset
