"""Findings in the reader's words: thread 1 of block 0, x[1], tile[1][0]; never an address."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from core.kernels.arguments import QUALIFIERS, signatures
from core.sim.machine.address_space import Memory, Region
from core.sim.machine.geometry import Shape
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.address_roots import Root, roots
from core.sim.ptx.cuda_source import Sources
from core.sim.ptx.declared import OPEN, SIZES, STRUCT, UNKNOWN, WORD, constants, declares, plain_name, size_of
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES
from core.sim.ptx.symbols import readable
from core.sim.ptx.syntax import Instruction, Location, Symbol

VERBS = {"read": "reads", "write": "writes", "atomic": "updates"}


def failed_assertion(text: str, file: str, function: str, line: int) -> str:
    """A failed assert, as text."""
    name = file.replace("\\", "/").rpartition("/")[2]
    return f"assertion `{text}` fails ({name}:{line}, in {function})"


def no_function(address: int) -> str:
    """An address that is called, as text."""
    return f"a call of {address:#x}, where no function with these parameters is"


def calls_itself(call: Instruction) -> tuple[str, str]:
    """(message, hint) for the call of a function that is under way already."""
    names = ", ".join(readable(o.name) for o in call.operands if isinstance(o, Symbol))
    return f"{names} calls itself, and the simulator has no call stack", "a loop with a stack of its own in an array"


@dataclass(frozen=True)
class Array:
    """A buffer or a variable as the source declares it. sizes: its dims, () for one that is no array or of unknown
    dims; start: its address; item: bytes of an element; kind: the element's type, "" where unknown; of: the
    allocation, as text."""

    name: str
    start: int
    size: int
    item: int
    sizes: tuple[int, ...] = ()
    kind: str = ""
    of: str = ""

    @property
    def count(self) -> int:
        return self.size // self.item

    def element(self, address: int, width: int) -> str:
        """ "x[1]", "tile[1][0]", or, where it has no name in C++, "element 1 of argument 0"."""
        offset = address - self.start
        first, last = offset // self.item, (offset + width - 1) // self.item
        if not WORD.match(self.name):
            return f"element {first} of {self.name}"
        if self.kind == STRUCT:
            return f"{self.name} at its byte {offset}"
        if not self.sizes:
            return self.name if self.size == self.item and offset == 0 else f"{self.name}[{first}]"
        if UNKNOWN in self.sizes:
            return f"{self.name} + {first} {self.kind or 'element'}s"
        if last > first:
            return f"{self._at(first)} to {self._at(last)}"
        return self._at(first)

    def _at(self, flat: int) -> str:
        places = []
        for size in self.sizes[:0:-1]:
            flat, place = divmod(flat, size)
            places.append(place)
        return self.name + "".join(f"[{place}]" for place in (flat, *places[::-1]))

    @property
    def limit(self) -> str:
        """ "x has 1 element"."""
        if self.kind == STRUCT:
            return f"{self.name} has {self.size} bytes"
        if len(self.sizes) > 1 and UNKNOWN not in self.sizes:
            shape = "".join(f"[{size}]" for size in self.sizes)
            return f"{self.name} is declared {self.name}{shape}"
        text = f"{self.name} has {self.count} element" + ("s" if self.count != 1 else "")
        return f"{text} ({self.of})" if self.of else text


@dataclass
class Wording:
    """Names for one launch: threads by the launch's shape, memory by parameters and declarations."""

    program: Program
    memory: Memory
    shape: Shape
    sources: Sources
    dynamic: int = 0  # bytes of dynamic shared memory
    declarations: dict[str, tuple[str, tuple[int, ...]] | None] = field(default_factory=dict)  # by name, once looked up

    # ------------------------------------------------------------------ threads
    def thread(self, block: int, thread: int) -> str:
        """thread: its number in the thread block; block: its number in the grid."""
        return f"thread {_index(thread, self.shape.block)} of {self.block(block)}"

    def block(self, block: int) -> str:
        return f"block {_index(block, self.shape.grid)}"

    def of_grid(self, number: int) -> str:
        """A thread that strict mode numbers over the grid, warps filled up."""
        padded = -(-self.shape.threads // 32) * 32
        return self.thread(number // padded, number % padded)

    def line(self, place: Location) -> str:
        """kernel.cu:4 `y[i] = x[i] + 10`; where functions were inlined, their line, and last the kernel's own."""
        places = [place]
        while places[-1].outer is not None:
            places.append(places[-1].outer)
        ends = {0, len(places) - 1}
        return ", inlined at ".join(self._line(one, i in ends) for i, one in enumerate(places))

    def _line(self, place: Location, quotes: bool) -> str:
        here = str(replace(place, outer=None))
        quoted = self.sources.quoted(place.file, place.line) if quotes else ""
        return here + (f" `{quoted}`" if quoted else "")

    def one_statement(self, ins: Instruction, other: int) -> bool:
        """Whether two instructions (`other` by its number) come from one statement: a loop's copies of it do."""
        before = self.program.instructions[other] if other >= 0 else None
        if before is None or before is ins or before.location != ins.location:
            return before is ins
        return self.sources.assignments(ins.location.file, ins.location.line) == 1

    # ------------------------------------------------------------------ memory
    def array(self, ins: Instruction, space: str, address: int, how: str = "read") -> Array | None:
        """The intended target of an access at an address of a space, in or out of bounds."""
        variable = self._based(ins, how, space)
        if space == "shared":
            return variable or self.shared_at(address, ins)
        return variable or self._region(ins, address)

    def _based(self, ins: Instruction, how: str, space: str) -> Array | None:
        """By the source of the address, if there is one."""
        kinds = ("variable",) if space == "shared" else ("param", "variable")
        based = [r for r in roots(self.program, ins, how != "read") if r.kind in kinds]
        based = [r for r in based if r.kind == "param" or self.program.places[r.name][0] == space]
        if space == "global":
            based = [r for r in based if r.kind == "variable" or self.memory.region(self.value(r)) or not self.value(r)]
        if len(based) != 1:
            return None
        return self._variable(ins, based[0].name) if based[0].kind == "variable" else self._parameter(ins, based[0])

    def value(self, root: Root) -> int:
        """The value of a pointer parameter."""
        start = self.program.places[root.name][1] + root.offset
        return int(self.memory.read(start, 8).view(np.uint64)[0])

    def _parameter(self, ins: Instruction | None, root: Root) -> Array:
        place = next(i for i, (variable, _) in enumerate(self.program.parameters) if variable.name == root.name)
        declared = self._declared(place) if root.offset == 0 else ""
        name = _identifier(declared) or f"argument {place}"
        value = self.value(root)
        region = self.memory.region(value)
        kind = " ".join(QUALIFIERS.sub(" ", declared.partition("*")[0]).split()) if "*" in declared else ""
        size = region.itemsize if region and region.itemsize > 1 else 0
        item = size or SIZES.get(kind) or _accessed(ins)
        if region is None:
            return Array(name, value, 0, item, (0,))
        whole = region.end - value
        of = "" if region.name.startswith("argument ") else region.name
        return Array(name, value, whole, item, (whole // item,), of=of)

    def _declared(self, place: int) -> str:
        """A parameter as the source writes it, "" where that cannot be had."""
        at = self.program.instructions[-1].location
        while at.outer is not None:
            at = at.outer
        text = self.sources.text(at.file)
        written = (
            signatures(text.whole).get(self.program.title.partition("<")[0].rpartition("::")[2], []) if text else []
        )
        return written[place] if len(written) == len(self.program.parameters) else ""

    def _region(self, ins: Instruction, address: int) -> Array | None:
        """By the space that holds an address."""
        region: Region | None = self.memory.region(address)
        if region is None or region.start == spaces.PARAMETERS:
            return None
        item = region.itemsize if region.itemsize > 1 else _accessed(ins)
        return Array(region.name, region.start, region.size, item, (region.size // item,))

    # ------------------------------------------------------------------ sentences; {who} is the thread
    def access(self, ins: Instruction, space: str, address: int, width: int, how: str) -> str:
        """ "{who} reads x[1]" """
        variable = self.array(ins, space, address, how)
        target = variable.element(address, width) if variable else self._elsewhere(space, address)
        return f"{{who}} {VERBS[how]} {target}"

    def outside(self, ins: Instruction, space: str, address: int, width: int, how: str) -> str:
        """ "{who} reads x[1], and x has 1 element" """
        if space == "local":
            return f"{{who}} {VERBS[how]} {width} bytes at byte {address} of its local memory, which ends before"
        variable = self.array(ins, space, address, how)
        if variable is None:
            return f"{{who}} {VERBS[how]} {width} bytes outside of the kernel's memory: {self.memory.near(address)}"
        limit = variable.limit
        if not variable.size:
            limit = (
                f"{variable.name} is a null pointer" if not variable.start else f"{variable.name} points to no memory"
            )
        return f"{self.access(ins, space, address, width, how)}, and {limit}"

    def late(self, how: str, block: int) -> str:
        """For an access to the shared memory of a thread block that has exited."""
        return f"{{who}} {VERBS[how]} shared memory of {self.block(block)}, which has exited"

    def place(self, address: int) -> str:
        """The element of global memory at an address, named by the parameter that points to its region."""
        region = self.memory.region(address)
        for variable, _ in self.program.parameters if region else ():
            root = Root("param", variable.name)
            if variable.size == 8 and region and self.memory.region(self.value(root)) == region:
                parameter = self._parameter(None, root)
                if address >= parameter.start:
                    return parameter.element(address, 1) + (f" ({parameter.of})" if parameter.of else "")
        return self.memory.element(address)

    def _elsewhere(self, space: str, address: int) -> str:
        return f"shared memory at byte {address}" if space == "shared" else self.memory.element(address)

    # ------------------------------------------------------------------ variables
    def _variable(self, ins: Instruction | None, symbol: str) -> Array:
        space, start = self.program.places[symbol]
        if space == "global":
            region = self.memory.region(start)
            size = region.size if region else 0
        else:
            size = self.program.sizes.get(symbol, 0) or self.dynamic
        name = plain_name(symbol)
        if name not in self.declarations:
            self.declarations[name] = self._declaration(name)
        declared = self.declarations[name]
        item = SIZES.get(declared[0]) if declared else None
        item = item or min(_accessed(ins), size or 8)
        if declared is None:
            return Array(name, start, size, item, () if size == item else (UNKNOWN,), _kind(ins))
        kind, dims = declared
        if kind == STRUCT:
            return Array(name, start, size, 1, (size,), STRUCT)
        if kind not in SIZES and dims and min(dims) > 0:
            item = max(1, size // math.prod(dims))
        if dims and dims[0] == OPEN:
            dims = (size // item // max(1, math.prod(dims[1:])), *dims[1:])
        if dims and math.prod(dims) * item != size:
            dims = (size // item,) if len(dims) == 1 else (UNKNOWN,)
        return Array(name, start, size, item, dims, kind)

    def shared_at(self, address: int, ins: Instruction | None = None) -> Array | None:
        """The last shared variable that begins before an address. ins: an access to it, whose type counts where the
        source has none."""
        places = {symbol: at for symbol, (space, at) in self.program.places.items() if space == "shared"}
        before = [symbol for symbol, at in places.items() if at <= address]
        return self._variable(ins, max(before, key=lambda symbol: places[symbol])) if before else None

    def _declaration(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """(the element's type, dims) of a variable that some file of the kernel declares; 0: a dim left open."""
        for file in dict.fromkeys(ins.location.file for ins in self.program.instructions):
            text = self.sources.text(file)
            declared = declares(text.plain, name) if text else None
            if declared is not None and text is not None:
                kind, dims = declared
                values = constants(text.whole, self.sources.defines)
                return kind, tuple(size_of(dim, values) for dim in dims)
        return None


def _index(flat: int, sizes: Sequence[int]) -> str:
    """A number over a shape as one would write it: 5, or (1, 2)."""
    axes = max((i + 1 for i, size in enumerate(sizes) if size > 1), default=1)
    places = [int(v) for v in np.unravel_index(flat, tuple(sizes)[::-1])[::-1]][:axes]
    return str(places[0]) if axes == 1 else f"({', '.join(map(str, places))})"


def _identifier(declared: str) -> str:
    match = re.search(r"([A-Za-z_]\w*)\s*(?:\[[^\]]*\])?\s*$", declared)
    return match[1] if match else ""


def _accessed(ins: Instruction | None) -> int:
    """Bytes of an element of an instruction's access."""
    if ins is None:
        return 1
    kind = next((TYPES[n] for n in reversed(ins.names) if n in TYPES and TYPES[n].kind != "p"), None)
    return kind.bytes if kind else 4


def _kind(ins: Instruction | None) -> str:
    return "element" if ins is None else {"f32": "float", "f64": "double"}.get(ins.names[-1], "element")
