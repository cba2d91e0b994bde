"""wmma: the tensor cores' older instructions, which CUDA C++'s <mma.h> makes: load, multiply and store of fragments.

PTX leaves open which thread holds which element of a fragment. Here element number i of the matrix, row by row, is
slot i % slots of lane i // slots, again from the start where the registers have room for more (f16's A and B).
Sums are those of mma: f64 from k = 0 up, the accumulator last, rounded once; f64's a chain of fused multiply-adds.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from core.sim.instructions.access import locate, settle
from core.sim.instructions.float_formats import canonical, fma_f64
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Read, Step, address_reader, bits_reader, writer
from core.sim.instructions.tensor_cores import DECODE, WARP, added, products, sums, whole
from core.sim.ptx.effects import elements
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import UNSIGNED, Array
from core.sim.ptx.state_spaces import space_of
from core.sim.ptx.syntax import Instruction, Operand
from core.sim.resident import Group

FAMILY = Family()
opcode = FAMILY.opcode

SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)$")
BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "f32": 4, "s32": 4, "s8": 1, "u8": 1, "f64": 8}
WIDE = "m16n16k16/m32n8k16/m8n32k16"
SPACE = "global/shared/shared::cta?"
FACTOR = (
    f"sync aligned row/col {WIDE} {SPACE} f16/bf16/s8/u8 | sync aligned row/col m16n16k8 {SPACE} tf32"
    f" | sync aligned row/col m8n8k4 {SPACE} f64"
)
TERM = (
    f"sync aligned row/col {WIDE} {SPACE} f16/f32/s32 | sync aligned row/col m16n16k8 {SPACE} f32"
    f" | sync aligned row/col m8n8k4 {SPACE} f64"
)


def _shape(ins: Instruction) -> dict[str, tuple[int, int]]:
    """Rows and columns of a, b, and c and d."""
    match = next(match for name in ins.names if (match := SHAPE.match(name)))
    m, n, k = (int(one) for one in match.groups())
    return {"a": (m, k), "b": (k, n), "c": (m, n), "d": (m, n)}


class Fragment:
    """A matrix of `rows` x `columns` elements of `kind` over the registers of a warp's lanes."""

    def __init__(self, program: Program, operand: Operand, kind: str, size: tuple[int, int]) -> None:
        self.kind, self.rows, self.columns = kind, *size
        self.parts = elements(operand)
        self.register = UNSIGNED[64 if kind == "f64" else 32]
        self.element = UNSIGNED[8 * BYTES[kind]]
        self.program = program
        self.slots = len(self.parts) * self.register.itemsize // self.element.itemsize
        # [lane, slot] -> the number of the element that it holds
        self.held = np.arange(WARP * self.slots).reshape(WARP, self.slots) % (self.rows * self.columns)

    def reader(self) -> Callable[[Group], Array]:
        """Bits of the matrices, (warps, rows, columns)."""
        reads = [bits_reader(self.program, o, self.register) for o in self.parts]
        first = np.unique(self.held, return_index=True)[1]

        def read(g: Group) -> Array:
            registers = np.stack([g.spread(one(g)).reshape(-1, WARP) for one in reads], 2)  # warp, lane, register
            slots = np.ascontiguousarray(registers).view(self.element).reshape(len(registers), -1)
            return slots[:, first].reshape(-1, self.rows, self.columns)

        return read

    def writer(self) -> Callable[[Group, Array], None]:
        """Writes slots, (warps, lanes, slots) of bits."""
        writes = [writer(self.program, o) for o in self.parts]

        def write(g: Group, slots: Array) -> None:
            registers = np.ascontiguousarray(slots).view(self.register).reshape(-1, len(writes))
            for i, one in enumerate(writes):
                one(g, g.spread_back(np.ascontiguousarray(registers[:, i])))

        return write

    def spread(self, matrix: Array) -> Array:
        """(warps, rows, columns) -> (warps, lanes, slots)."""
        return matrix.reshape(len(matrix), -1)[:, self.held]

    def places(self, ins: Instruction) -> Callable[[Group, Array, Array], Array]:
        """(addresses of the matrices, strides) by lane -> the address of every slot's element, (lanes, slots)."""
        row, column = np.divmod(self.held, self.columns)
        outer, inner = (row, column) if "row" in ins.names else (column, row)

        def place(g: Group, start: Array, stride: Array) -> Array:
            lanes = np.tile(np.arange(WARP), len(start) // WARP)
            steps = outer[lanes] * stride[:, None].astype(np.int64) + inner[lanes]
            return np.asarray(start[:, None] + steps * self.element.itemsize)

        return place


def _stride(program: Program, ins: Instruction, place: int, fragment: Fragment) -> Read:
    """Elements from one row (or column) to the next: the operand at `place`, or as many as one has."""
    if len(ins.operands) > place:
        return bits_reader(program, ins.operands[place], UNSIGNED[32])
    tight = np.array([fragment.columns if "row" in ins.names else fragment.rows], np.uint32)
    return lambda g: tight


def _parts(ins: Instruction, places: Array) -> list[tuple[str, Array, Array | None]]:
    """The addresses by state space."""
    space = space_of(ins.names)
    return settle(space, np.ascontiguousarray(places.reshape(-1)))


@opcode("wmma.load.a", FACTOR)
@opcode("wmma.load.b", FACTOR)
@opcode("wmma.load.c", TERM)
def _load(program: Program, ins: Instruction) -> Step:
    """wmma.load.x.sync.aligned.layout.shape{.space}.type r, [p]{, stride}."""
    fragment = Fragment(program, ins.operands[0], ins.names[-1], _shape(ins)[ins.names[2]])
    where, write = address_reader(program, ins.operands[1]), fragment.writer()
    stride, place = _stride(program, ins, 2, fragment), fragment.places(ins)
    width = fragment.element.itemsize

    def load(g: Group) -> None:
        whole(g, ins, WARP)
        places = place(g, g.spread(where(g)), g.spread(stride(g)))
        lanes = np.repeat(g.indices(), fragment.slots)
        slots = np.empty(places.size, fragment.element)
        for space, part, positions in _parts(ins, places):
            own = slice(None) if positions is None else positions
            view, index = locate(g, ins, space, part, lanes[own], width, "read")
            slots[own] = view.take(index)
        write(g, slots.reshape(places.shape))

    return load


@opcode("wmma.store.d", TERM)
def _store(program: Program, ins: Instruction) -> Step:
    """wmma.store.d.sync.aligned.layout.shape{.space}.type [p], r{, stride}."""
    fragment = Fragment(program, ins.operands[1], ins.names[-1], _shape(ins)["d"])
    where, read = address_reader(program, ins.operands[0]), fragment.reader()
    stride, place = _stride(program, ins, 2, fragment), fragment.places(ins)
    width = fragment.element.itemsize

    def store(g: Group) -> None:
        whole(g, ins, WARP)
        g.batch.progress += 1
        places = place(g, g.spread(where(g)), g.spread(stride(g)))
        lanes, slots = np.repeat(g.indices(), fragment.slots), fragment.spread(read(g)).reshape(-1)
        for space, part, positions in _parts(ins, places):
            own = slice(None) if positions is None else positions
            view, index = locate(g, ins, space, part, lanes[own], width, "write")
            if g.batch.watch is not None:
                g.batch.watch.stored(g, ins, space, index, lanes[own], slots[own], width)
            view[index] = slots[own]

    return store


ORDERS = "sync aligned row/col row/col"


@opcode(
    "wmma.mma",
    f"{ORDERS} {WIDE} f16/f32 f16/f32 | {ORDERS} {WIDE} f32 bf16 bf16 f32 | {ORDERS} m16n16k8 f32 tf32 tf32 f32"
    f" | {ORDERS} {WIDE} s32 s8/u8 s8/u8 s32 satfinite? | {ORDERS} m8n8k4 rn? f64 f64 f64 f64 rn?",
)
def _multiply(program: Program, ins: Instruction) -> Step:
    """wmma.mma.sync.aligned.alayout.blayout.shape.dtype{.atype.btype}.ctype d, a, b, c."""
    kinds = [n for n in ins.names[5:] if n in BYTES]
    result, *factors, term = kinds if len(kinds) == 4 else [kinds[0], "f16", "f16", kinds[1]]
    shape, saturate = _shape(ins), "satfinite" in ins.names
    target = Fragment(program, ins.operands[0], result, shape["d"])
    read_a, read_b, read_c = (
        Fragment(program, operand, kind, shape[name]).reader()
        for operand, kind, name in zip(ins.operands[1:4], (*factors, term), "abc", strict=True)
    )
    write = target.writer()

    def multiply(g: Group) -> None:
        whole(g, ins, WARP)
        if result == "f64":
            bits = _chain(read_a(g).view(np.float64), read_b(g).view(np.float64), read_c(g).view(np.float64))
        else:
            left, right = (
                DECODE[kind][1](read(g)).astype(np.float64)
                for kind, read in zip(factors, (read_a, read_b), strict=True)
            )
            bits = sums(products(left, right) + added(read_c(g), term), result, saturate)
        write(g, target.spread(bits))

    return multiply


def _chain(left: Array, right: Array, total: Array) -> Array:
    """f64's sums: a fused multiply-add for each k, starting with the accumulator."""
    for k in range(left.shape[-1]):
        x, y = np.broadcast_arrays(left[:, :, k : k + 1], right[:, k : k + 1, :])
        total = fma_f64(x.reshape(-1), y.reshape(-1), total.reshape(-1)).reshape(x.shape)
    return np.ascontiguousarray(canonical(total)).view(np.uint64)
