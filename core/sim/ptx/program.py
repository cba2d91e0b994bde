"""A kernel in one list: calls inlined, registers numbered, variables placed.

Its instructions become functions in instructions/binding.py, which fills `blocks`.

Device functions are copied into their callers, so there is no call stack: a thread that calls a function recursively
stops with an error. A call through a pointer compares it with the addresses of the functions that it may mean, and has
a copy of each. The .param variables of a call become local memory of the thread, as on the hardware where registers do
not suffice.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np

from core.sim.faults import PtxError
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.block import Block
from core.sim.ptx.register_types import TYPES, Array, Type
from core.sim.ptx.symbols import head
from core.sim.ptx.syntax import (  # fmt: skip
    Address,
    Immediate,
    Instruction,
    Label,
    Location,
    Module,
    Negated,
    Operand,
    Pair,
    PtxFunction,
    PtxVariable,
    Register,
    Symbol,
    Vector,
)

T = TypeVar("T")
GONE = -1  # the lanes went on elsewhere, wait, or have exited
EXIT = -2  # in place of a program counter: where lanes that exit go
CARRY = "%carry"
ZONE = 512  # bytes between two shared variables
EXTERN_ALIGN = 16  # the least alignment of an extern shared array
EXTERNAL = ("__assertfail", "vprintf", "malloc", "free")  # CUDA's own functions, implemented by instructions/calls.py
CALL_NOWHERE = ("call", "nowhere")  # a call through a pointer to none of them
CALL_ITSELF = ("call", "itself")  # a call of a function that is under way already
FUNCTIONS = 1 << 60  # addresses of functions, far from all memory
MAX_INLINED = 200_000  # instructions; a call tree larger than this is a mistake


@dataclass(eq=False)
class Program:
    """One kernel. `blocks` is indexed by the program counter of a block's first instruction."""

    name: str
    module: Module
    entry: PtxFunction
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, Type] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)  # variable -> (space, address)
    sizes: dict[str, int] = field(default_factory=dict)  # of shared and local variables, in bytes
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: list[tuple[PtxVariable, int]] = field(default_factory=list)  # with offsets in the parameter buffer
    shared_size: int = spaces.SHARED_START  # where dynamic shared memory begins
    shared_align: int = 1  # the largest alignment of a shared variable
    shared_used: int = spaces.SHARED_START  # end of the last static variable
    zones: int = 0  # bytes between shared variables and after them that only the simulator has
    static_shared: int = 0  # bytes of static shared memory
    local_size: int = 0
    blocks: dict[int, Block] = field(default_factory=dict)
    pure: set[int] = field(default_factory=set)  # ids of the instructions that compute registers of registers
    fresh: list[Array] = field(default_factory=list)
    missing: list[PtxError] = field(default_factory=list)  # missing in the simulator; raised where it is reached
    facts: dict[Callable[[Program], Any], Any] = field(default_factory=dict)  # answers of `per_program` functions

    @property
    def title(self) -> str:
        """The kernel's name as the source has it: "ns::k<float, 3>"."""
        return head(self.name)

    def number(self, register: Register) -> int:
        if register.name not in self.numbers:
            raise PtxError(f"kernel {self.name} uses the register {register.name}, which it does not declare")
        return self.numbers[register.name]

    def kind(self, register: Register) -> Type:
        return self.kinds[register.name]

    def carry(self) -> Register:
        """The carry flag of multi-word arithmetic."""
        return Register(CARRY)

    def place(self, symbol: Symbol) -> tuple[str, int]:
        """(space, address) of a variable."""
        if symbol.name not in self.places:
            raise PtxError(f"kernel {self.name} uses {symbol.name}, which it does not declare")
        return self.places[symbol.name]

    def address(self, symbol: Symbol) -> int:
        return self.place(symbol)[1] + symbol.offset

    def target(self, label: str) -> int:
        if label not in self.labels:
            raise PtxError(f"kernel {self.name} branches to {label}, which is not there")
        return self.labels[label]

    def exits(self, pc: int) -> bool:
        """Whether lanes at `pc` do nothing but exit."""
        return pc >= len(self.instructions) or (
            self.instructions[pc].names[0] in ("ret", "exit") and self.instructions[pc].predicate is None
        )

    @property
    def has_shared_variables(self) -> bool:
        """Whether there are shared variables of a size of their own, which strict mode parts."""
        return any(space == "shared" and self.sizes.get(name) for name, (space, _) in self.places.items())

    @property
    def required_cluster(self) -> int:
        sizes = self.entry.directives.get("reqnctapercluster", ())
        return math.prod(sizes)

    @property
    def max_threads(self) -> int:
        sizes = self.entry.directives.get("reqntid") or self.entry.directives.get("maxntid") or ()
        return math.prod(sizes) if sizes else 1024


def per_program(ask: Callable[[Program], T]) -> Callable[[Program], T]:
    """Facts of a program, computed once; the cache lives as long as the program."""

    def answer(program: Program) -> T:
        if ask not in program.facts:
            program.facts[ask] = ask(program)
        return cast(T, program.facts[ask])

    return answer


def link(module: Module, name: str, globals_at: dict[str, int], parted: bool = False) -> Program:
    """The kernel `name` of a module, whose global and constant variables are at `globals_at`.

    parted: with zones between shared variables, as strict mode wants them.
    """
    entry = module.functions.get(name)
    if entry is None or not entry.entry:
        raise PtxError(f"there is no kernel {name}; the source has {', '.join(module.kernels) or 'none'}")
    program = Program(name, module, entry)
    program.places |= {name: ("function", function_address(name)) for name in module.functions}
    program.places |= {symbol: ("global", address) for symbol, address in globals_at.items()}
    _place_parameters(program)
    _flatten(program, entry, "", {}, (name,))
    _place_shared(program)
    if parted:
        _part_shared(program)
    program.kinds[CARRY] = TYPES["u32"]
    for number, (register, kind) in enumerate(program.kinds.items()):
        program.numbers[register] = number
        program.fresh.append(np.zeros(1, kind.raw))
    return program


def _place_parameters(program: Program) -> None:
    offset = 0
    for variable in program.entry.parameters:
        offset = -(-offset // variable.align) * variable.align
        program.parameters.append((variable, offset))
        program.places[variable.name] = ("param", spaces.PARAMETERS + offset)
        offset += variable.size


def _place(program: Program, variable: PtxVariable, name: str) -> None:
    """Give a shared or local variable its address."""
    program.sizes[name] = variable.size
    if variable.space == "shared":
        program.shared_align = max(program.shared_align, variable.align)
        program.shared_size = -(-program.shared_size // variable.align) * variable.align
        program.places[name] = ("shared", program.shared_size)
        program.shared_size += variable.size
    else:
        program.local_size = -(-program.local_size // max(variable.align, 8)) * max(variable.align, 8)
        program.places[name] = ("local", program.local_size)
        program.local_size += variable.size


def _place_shared(program: Program) -> None:
    """The module's shared variables, after those of the functions, as ptxas lays them out.

    Seen in the cubins of ptxas 13.0: those that the kernel uses, in the order of their declarations; then every
    `extern` array of the module, used or not, each at the next multiple of its alignment and of 16. Dynamic shared
    memory begins at the last of these, and the launch's size counts from there.
    """
    variables = [v for v in program.module.variables.values() if v.space == "shared"]
    used = {symbol for i in program.instructions for operand in i.operands for symbol in _symbols(operand)}
    for variable in variables:
        if variable.size and variable.name in used:
            _place(program, variable, variable.name)
    program.shared_used = program.shared_size
    program.static_shared = program.shared_used - spaces.SHARED_START
    program.shared_size = _up(program.shared_size, EXTERN_ALIGN)
    for variable in variables:
        if not variable.size:
            program.shared_align = max(program.shared_align, variable.align)
            program.shared_size = _up(program.shared_size, max(EXTERN_ALIGN, variable.align))
            program.places[variable.name] = ("shared", program.shared_size)


def _part_shared(program: Program) -> None:
    """Put an unowned zone after each static shared variable, so that strict mode sees an index that runs
    from one into the next. Zones keep alignment and banks, and count in no size but `zones`."""
    placed = sorted((at, name) for name, (space, at) in program.places.items() if space == "shared")
    static = [name for _, name in placed if program.sizes.get(name)]
    zone = max(ZONE, program.shared_align)
    for number, name in enumerate(static):
        program.places[name] = ("shared", program.places[name][1] + number * zone)
    for name in (name for _, name in placed if name not in static):
        program.places[name] = ("shared", program.places[name][1] + len(static) * zone)
    program.zones = len(static) * zone
    program.shared_used += max(0, len(static) - 1) * zone
    program.shared_size += program.zones


def _up(size: int, align: int) -> int:
    return -(-size // align) * align


def _symbols(operand: Operand) -> Iterator[str]:
    """The variables that an operand names."""
    if isinstance(operand, Symbol):
        yield operand.name
    elif isinstance(operand, Address):
        yield from _symbols(operand.base)
    elif isinstance(operand, Vector):
        for part in operand.parts:
            yield from _symbols(part)


def _flatten(
    program: Program,
    function: PtxFunction,
    prefix: str,
    formal: dict[str, str],
    stack: tuple[str, ...],
    call: Location | None = None,
) -> None:
    """Append a function's instructions, its names made unique by `prefix`; `formal` maps parameters to arguments."""
    program.kinds |= {prefix + name: kind for name, kind in function.registers.items()}
    for variable in function.variables:
        _place(program, variable, prefix + variable.name)
    own = {v.name for v in function.variables} | {item.name for item in function.body if isinstance(item, Label)}
    rename = _Renaming(prefix, formal, own)
    program.tables |= {prefix + n: tuple(prefix + t for t in targets) for n, targets in function.tables.items()}
    finish = f"{prefix}end of {function.name}"
    for item in function.body:
        if isinstance(item, Label):
            program.labels[prefix + item.name] = len(program.instructions)
            continue
        instruction = rename.instruction(item)
        if call is not None:
            instruction.location = item.location.within(call)
        if instruction.names[0] == "call":
            _inline(program, instruction, f"{prefix}{function.name}#{len(program.instructions)}/", stack)
        elif instruction.names[0] == "ret" and prefix:
            program.instructions.append(
                replace(instruction, names=("bra", "uni"), operands=(Symbol(finish),), opcode="bra.uni")
            )
        else:
            program.instructions.append(instruction)
    if len(program.instructions) > MAX_INLINED:
        raise PtxError(f"kernel {program.title} has more than {MAX_INLINED} instructions after its calls are inlined")
    program.labels[finish] = len(program.instructions)


def function_address(name: str) -> int:
    """The address of a device function, in every module that has it."""
    return FUNCTIONS + 16 * int.from_bytes(hashlib.sha256(name.encode()).digest()[:5], "little")


def _inline(program: Program, call: Instruction, prefix: str, stack: tuple[str, ...]) -> None:
    symbols = [o for o in call.operands if isinstance(o, Symbol)]
    pointer = next((o for o in call.operands if isinstance(o, Register)), None)
    callee = program.module.functions.get(symbols[0].name if symbols else "")
    if callee is None and pointer is None:  # one of CUDA's own, such as vprintf: an instruction (instructions/calls.py)
        names = ("call", symbols[0].name) if symbols and symbols[0].name in EXTERNAL else ("call",)
        program.instructions.append(replace(call, names=names, opcode=".".join(names)))
        return
    skip = f"{prefix}skip"
    if call.predicate is not None:
        program.instructions.append(_made(call, "bra", Symbol(skip), call.predicate, not call.negated))
    if pointer is not None:
        _dispatch(program, call, pointer, prefix, stack)
    else:
        assert callee is not None
        _copy(program, callee, call, prefix, stack)
    program.labels[skip] = len(program.instructions)


def _made(call: Instruction, opcode: str, operand: Operand, predicate: Register | None, negated: bool) -> Instruction:
    """An instruction in the place of a call."""
    names = tuple(opcode.split("."))
    return replace(call, opcode=opcode, names=names, operands=(operand,), predicate=predicate, negated=negated)


def _dispatch(program: Program, call: Instruction, pointer: Register, prefix: str, stack: tuple[str, ...]) -> None:
    """A call through a pointer: a comparison and a copy for each function that has these parameters."""
    done = f"{prefix}done"
    shape = [[program.sizes[name] for name in names] for names in call_parameters(call)]
    for callee in _pointed_at(program):
        own = [[v.size for v in variables] for variables in (callee.results, callee.parameters)]
        if own != shape:
            continue
        other, differs = f"{prefix}{callee.name}/other", Register(f"{prefix}{callee.name}/differs")
        program.kinds[differs.name] = TYPES["pred"]
        compared = _made(call, "setp.ne.u64", differs, None, False)
        compared.operands = (differs, pointer, Immediate(function_address(callee.name)))
        program.instructions += [compared, _made(call, "bra", Symbol(other), differs, False)]
        _copy(program, callee, call, f"{prefix}{callee.name}/", stack)
        program.instructions.append(_made(call, "bra.uni", Symbol(done), None, False))
        program.labels[other] = len(program.instructions)
    program.instructions.append(_made(call, ".".join(CALL_NOWHERE), pointer, None, False))
    program.labels[done] = len(program.instructions)


@per_program
def _pointed_at(program: Program) -> list[PtxFunction]:
    """The device functions whose address the module takes."""
    functions = program.module.functions
    words = {word for v in program.module.variables.values() if isinstance(v.initial, tuple) for text in v.initial
             for word in re.findall(r"[\w$]+", text)}  # fmt: skip
    for function in functions.values():
        moved = (i for i in function.body if isinstance(i, Instruction) and i.names[0] != "call")
        words |= {name for i in moved for operand in i.operands for name in _symbols(operand)}
    return [f for f in functions.values() if f.name in words and not f.entry]


def call_parameters(call: Instruction) -> tuple[list[str], list[str]]:
    """The .param variables of a call: (results, arguments)."""
    lists = [o for o in call.operands if isinstance(o, Vector)]
    first = bool(call.operands) and isinstance(call.operands[0], Vector)
    names = [[part.name for part in one.parts if isinstance(part, Symbol)] for one in lists]
    return (names[0] if first else []), (names[-1] if len(names) > first else [])


def _copy(program: Program, callee: PtxFunction, call: Instruction, prefix: str, stack: tuple[str, ...]) -> None:
    if callee.name in stack:
        program.instructions.append(_made(call, ".".join(CALL_ITSELF), Symbol(callee.name), None, False))
        return
    results, arguments = call_parameters(call)
    formal = dict(zip((v.name for v in (*callee.results, *callee.parameters)), [*results, *arguments], strict=True))
    _flatten(program, callee, prefix, formal, (*stack, callee.name), call.location)


@dataclass
class _Renaming:
    prefix: str
    formal: dict[str, str]
    own: set[str]

    def instruction(self, item: Instruction) -> Instruction:
        if not self.prefix:
            return item
        predicate = Register(self.prefix + item.predicate.name) if item.predicate else None
        return replace(item, operands=tuple(self.operand(o) for o in item.operands), predicate=predicate)

    def operand(self, o: Operand) -> Operand:
        cases: dict[type, Callable[[Any], Operand]] = {
            Register: lambda r: r if r.name == "_" else Register(self.prefix + r.name),
            Symbol: lambda s: Symbol(self.symbol(s.name), s.offset),
            Vector: lambda v: Vector(tuple(self.operand(p) for p in v.parts)),
            Address: lambda a: Address(self.operand(a.base), a.offset, self.vector(a.coordinates)),
            Pair: lambda p: Pair(self.operand(p.first), self.operand(p.second)),
            Negated: lambda n: Negated(self.operand(n.operand)),
        }
        rewrite = cases.get(type(o))
        return rewrite(o) if rewrite else o

    def vector(self, v: Vector | None) -> Vector | None:
        return Vector(tuple(self.operand(p) for p in v.parts)) if v else None

    def symbol(self, name: str) -> str:
        return self.formal.get(name) or (self.prefix + name if name in self.own else name)
