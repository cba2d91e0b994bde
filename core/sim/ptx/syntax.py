"""The syntax tree of PTX: places, operands, instructions, variables, functions, a module. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.kernels.sources import include_folder, is_public, prelude_file, shown
from core.sim.ptx.register_types import Type


@dataclass(frozen=True)
class Location:
    """A source line; `outer` is where its function was called, if its text is there instead (inlined)."""

    file: str
    line: int
    outer: Location | None = None

    def __str__(self) -> str:
        here = f"{_shown(self.file)}:{self.line}"
        return f"{here}, inlined at {self.outer}" if self.outer else here

    def within(self, call: Location) -> Location:
        """The same line of a function that was called from `call`."""
        return Location(self.file, self.line, self.outer.within(call) if self.outer else call)


def _shown(file: str) -> str:
    """A path as one would type it here, since NVRTC makes all of them absolute; a header of the core has its name."""
    path = Path(file)
    if not is_public(path):
        return shown(path)
    return path.name if path == prelude_file() else path.relative_to(include_folder()).as_posix()


NOWHERE = Location("ptx", 0)


@dataclass(frozen=True)
class Register:
    """A register, by its name in the function."""

    name: str


@dataclass(frozen=True)
class Immediate:
    """A constant: its bits (two's complement, or IEEE when `floating` is 32 or 64)."""

    bits: int
    floating: int = 0


@dataclass(frozen=True)
class Special:
    """A read-only register such as %tid.x."""

    name: str


@dataclass(frozen=True)
class Symbol:
    """The address of a variable, plus an offset; a label or a function elsewhere."""

    name: str
    offset: int = 0


@dataclass(frozen=True)
class Vector:
    """Operands in braces: `{%f1, %f2}`."""

    parts: tuple[Operand, ...]


@dataclass(frozen=True)
class Address:
    """[base + offset]; `coordinates` for a tensor's [map, {x, y}]."""

    base: Operand
    offset: int = 0
    coordinates: Vector | None = None


@dataclass(frozen=True)
class Pair:
    """p|q: two results."""

    first: Operand
    second: Operand


@dataclass(frozen=True)
class Negated:
    """!p"""

    operand: Operand


Operand = Register | Immediate | Special | Symbol | Vector | Address | Pair | Negated


@dataclass
class Instruction:
    """A statement of PTX, with its operands and place."""

    opcode: str
    operands: tuple[Operand, ...]
    predicate: Register | None
    negated: bool
    location: Location
    text: str
    names: tuple[str, ...] = ()  # opcode split at its dots
    parameters: dict[str, str] = field(default_factory=dict)  # filled when a call is inlined
    targets: tuple[str, ...] = ()  # labels of a branch


@dataclass(frozen=True)
class Label:
    """A target of branches."""

    name: str


@dataclass(frozen=True)
class PtxVariable:
    """A variable of any state space."""

    space: str  # global, const, shared, local, param
    name: str
    align: int
    size: int  # bytes; 0 for an `extern` array, whose size the launch gives
    initial: bytes | tuple[str, ...] | None = None
    kind: str = ""  # of an element: u32, f32, b8


@dataclass
class PtxFunction:
    """A kernel (`entry`) or a device function."""

    name: str
    entry: bool
    parameters: list[PtxVariable]
    results: list[PtxVariable]
    directives: dict[str, tuple[int, ...]]
    registers: dict[str, Type] = field(default_factory=dict)
    variables: list[PtxVariable] = field(default_factory=list)
    body: list[Instruction | Label] = field(default_factory=list)
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)  # .branchtargets


@dataclass
class Module:
    """A file of PTX. kernels: the names of the functions that can be launched."""

    target: str
    functions: Mapping[str, PtxFunction]
    variables: dict[str, PtxVariable]
    kernels: list[str] = field(default_factory=list)
