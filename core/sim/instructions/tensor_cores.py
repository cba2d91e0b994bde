"""Tensor-core instructions of a warp: mma, ldmatrix, stmatrix, movmatrix.

Fragment layouts are those of PTX ISA 9.7.14. Products are summed in f64 from k = 0 up, the
accumulator is added last, and the sum is rounded once to f32: the hardware's own order and its truncation are not
documented, so its last bits may differ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.instructions.access import locate, settle
from core.sim.instructions.float_formats import FORMATS, canonical, fma_f64
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Read, Step, address_reader, bits_reader, writer
from core.sim.ptx.effects import elements
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import UNSIGNED, WIDE, Array
from core.sim.ptx.state_spaces import space_of
from core.sim.ptx.syntax import Instruction, Operand
from core.sim.resident import Group

FAMILY = Family()
opcode = FAMILY.opcode

WARP = 32
U32 = UNSIGNED[32]


def _f32_of_tf32(bits: Array) -> Array:
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


DECODE: dict[str, tuple[int, Callable[[Array], Array]]] = {
    "bf16": (2, FORMATS["bf16"].decode),
    "f16": (2, FORMATS["f16"].decode),
    "tf32": (4, _f32_of_tf32),
    "s8": (1, lambda bits: bits.view(np.int8)),
    "u8": (1, lambda bits: bits),
}


def whole(g: Group, ins: Instruction, size: int) -> int:
    """The number of active warps (or warpgroups) of `size` lanes; all of their lanes must be active."""
    lanes = g.indices()
    if len(lanes) % size or (g.index is not None and (lanes.reshape(-1, size)[:, 0] % size).any()):
        raise g.batch.fault(
            ins, "divergent", f"an instruction of {size} threads is reached by only some of them", g, int(lanes[0]),
            hint="every thread of the warp or warpgroup must execute it together",
        )  # fmt: skip
    return len(lanes) // size


def registers(program: Program, operand: Operand) -> list[Read]:
    return [bits_reader(program, o, U32) for o in elements(operand)]


def values(g: Group, reads: list[Read], size: int) -> Array:
    """Fragments as (warps, registers, lanes) of 32 bits."""
    return np.stack([g.spread(read(g)).reshape(-1, size) for read in reads], 1)


def unpack(fragment: Array, kind: str) -> Array:
    """(warps, registers, lanes) of 32 bits -> (warps, registers, 8 groups, elements of 4 lanes) as f64."""
    nbytes, decode = DECODE[kind]
    w, r, lanes = fragment.shape
    plain = np.ascontiguousarray(fragment).view(UNSIGNED[8 * nbytes])
    return decode(plain).astype(np.float64).reshape(w, r, lanes // 4, 16 // nbytes)


def a_matrix(fragment: Array, kind: str) -> Array:
    """A's registers, (warps, 2 or 4, 32) -> (warps, 16, k): rows 0-7 and 8-15, then the upper half of k."""
    parts = unpack(fragment, kind)
    halves = [np.concatenate([parts[:, i], parts[:, i + 1]], 1) for i in range(0, parts.shape[1], 2)]
    return np.concatenate(halves, 2)


def b_matrix(fragment: Array, kind: str) -> Array:
    """B's registers, (warps, 1 or 2, 32) -> (warps, k, 8)."""
    parts = unpack(fragment, kind)
    return np.concatenate([parts[:, i] for i in range(parts.shape[1])], 2).transpose(0, 2, 1)


def products(left: Array, right: Array) -> Array:
    """(..., m, k) and (..., k, n) of f64 -> (..., m, n): sums from k = 0 up, in this order on every machine."""
    total = left[..., :, :1] * right[..., :1, :]
    spare = np.empty_like(total)
    for k in range(1, left.shape[-1]):
        np.multiply(left[..., :, k : k + 1], right[..., k : k + 1, :], out=spare)
        np.add(total, spare, out=total)
    return np.asarray(total)


def sums(total: Array, kind: str, saturate: bool = False) -> Array:
    """Sums in f64, or whole numbers in it, as the bits of accumulators of `kind`: f32, f16 or s32."""
    if kind == "s32":
        exact = np.clip(total, -(2**31), 2**31 - 1) if saturate else total
        return np.asarray(exact.astype(np.int64).astype(np.int32).view(U32))
    return np.asarray(FORMATS[kind].encode(total, "rn"))


def added(bits: Array, kind: str) -> Array:
    """The bits of accumulators as numbers."""
    return bits.view(np.int32) if kind == "s32" else FORMATS[kind].decode(bits)


INTEGERS = " | ".join(
    f"sync aligned {shape} row col satfinite? s32 s8/u8 s8/u8 s32" for shape in ("m16n8k32", "m16n8k16")
)


@opcode(
    "mma",
    "sync aligned m16n8k16/m16n8k8 row col f32 bf16 bf16 f32"
    " | sync aligned m16n8k16/m16n8k8 row col f32/f16 f16 f16 f32/f16"
    f" | sync aligned m16n8k8/m16n8k4 row col f32 tf32 tf32 f32 | {INTEGERS}",
)
def _mma(program: Program, ins: Instruction) -> Step:
    """mma.sync.aligned.m16n8k*.row.col{.satfinite}.dtype.atype.btype.ctype d, a, b, c."""
    result, left_kind, right_kind, sum_kind = ins.names[-4:]
    writes = [writer(program, o) for o in elements(ins.operands[0])]
    a, b, c = (registers(program, o) for o in ins.operands[1:4])
    saturate = "satfinite" in ins.names

    def multiply(g: Group) -> None:
        whole(g, ins, WARP)
        left, right = a_matrix(values(g, a, WARP), left_kind), b_matrix(values(g, b, WARP), right_kind)
        product = products(left, right).reshape(-1, 2, 8, 4, 2)  # warp, row half, row, column pair, column
        total = product + _accumulators(values(g, c, WARP), sum_kind)
        bits = _accumulator_registers(sums(total, result, saturate), result)
        for i, write in enumerate(writes):
            write(g, g.spread_back(np.ascontiguousarray(bits[:, i]).reshape(-1)))

    return multiply


def _accumulators(fragment: Array, kind: str) -> Array:
    """C's registers, (warps, 4 or 2, 32) -> numbers by warp, row half, row, column pair, column."""
    if kind == "f16":  # a register holds both columns of a pair
        halves = np.ascontiguousarray(fragment).view(np.uint16)
        return added(halves, kind).reshape(-1, 2, 8, 4, 2)
    return added(fragment, kind).reshape(-1, 2, 2, 8, 4).transpose(0, 1, 3, 4, 2)


def _accumulator_registers(bits: Array, kind: str) -> Array:
    """The way back, to (warps, 4 or 2, 32) of 32 bits."""
    if kind == "f16":
        return np.ascontiguousarray(bits).view(U32).reshape(len(bits), 2, WARP)
    return bits.transpose(0, 1, 4, 2, 3).reshape(len(bits), 4, WARP)


@opcode("mma.sync.aligned.m8n8k4", "row col f64 f64 f64 f64")
@opcode("mma.sync.aligned.m16n8k4", "row col f64 f64 f64 f64 | row col f32 tf32 tf32 f32")
def _mma_f64(program: Program, ins: Instruction) -> Step:
    """mma of f64: one fused multiply-add for each k, from k = 0 up, starting with the accumulator."""
    if ins.names[-1] != "f64":
        return _mma(program, ins)
    writes = [writer(program, o) for o in elements(ins.operands[0])]
    doubles = np.dtype(np.float64)
    a, b, c = ([bits_reader(program, o, doubles) for o in elements(list_)] for list_ in ins.operands[1:4])
    lane = np.arange(WARP)
    row, k = lane >> 2, lane & 3

    def multiply(g: Group) -> None:
        whole(g, ins, WARP)
        left, right, old = (values(g, reads, WARP) for reads in (a, b, c))
        for i, write in enumerate(writes):  # register i: row half i // 2, column 2 k + i % 2
            total = np.ascontiguousarray(old[:, i]).reshape(-1)
            column = 2 * k + i % 2
            for at in range(4):
                x, y = left[:, i // 2][:, 4 * row + at], right[:, 0][:, 4 * column + at]
                total = fma_f64(x.reshape(-1), y.reshape(-1), total)
            write(g, g.spread_back(canonical(total)))

    return multiply


def _count(ins: Instruction) -> int:
    return next(int(n[1:]) for n in ins.names if n in ("x1", "x2", "x4"))


def _rows(g: Group, ins: Instruction, where: Read, count: int, how: str) -> tuple[Array, Array]:
    """The 16-byte rows whose addresses the first 8 lanes per matrix hold."""
    whole(g, ins, WARP)
    addresses = g.spread(where(g)).reshape(-1, WARP)[:, : 8 * count].reshape(-1)
    lanes = g.indices().reshape(-1, WARP)[:, : 8 * count].reshape(-1)
    ((space, within, _),) = settle(space_of(ins.names), np.ascontiguousarray(addresses))
    return locate(g, ins, space, within, lanes, 16, how)


@opcode("ldmatrix", "sync aligned m8n8 x1/x2/x4 trans? $cluster? b16")
def _ldmatrix(program: Program, ins: Instruction) -> Step:
    count, transposed = _count(ins), "trans" in ins.names
    where = address_reader(program, ins.operands[1])
    writes = [writer(program, o) for o in elements(ins.operands[0])]

    def load(g: Group) -> None:
        view, index = _rows(g, ins, where, count, "read")
        matrices = view.take(index).view(np.uint16).reshape(-1, count, 8, 8)
        if transposed:
            matrices = matrices.transpose(0, 1, 3, 2)
        words = np.ascontiguousarray(matrices).view(U32).reshape(-1, count, WARP)
        for i, write in enumerate(writes):
            write(g, g.spread_back(np.ascontiguousarray(words[:, i]).reshape(-1)))

    return load


@opcode("stmatrix", "sync aligned m8n8 x1/x2/x4 trans? $shared? b16")
def _stmatrix(program: Program, ins: Instruction) -> Step:
    count, transposed = _count(ins), "trans" in ins.names
    where, reads = address_reader(program, ins.operands[0]), registers(program, ins.operands[1])

    def store(g: Group) -> None:
        view, index = _rows(g, ins, where, count, "write")
        matrices = np.ascontiguousarray(values(g, reads, WARP)).view(np.uint16).reshape(-1, count, 8, 8)
        if transposed:
            matrices = matrices.transpose(0, 1, 3, 2)
        view[index] = np.ascontiguousarray(matrices).reshape(-1).view(WIDE[128])

    return store


@opcode("movmatrix", "sync aligned m8n8 trans b16")
def _movmatrix(program: Program, ins: Instruction) -> Step:
    """Transposes an 8 x 8 matrix that is distributed over a warp."""
    read, write = bits_reader(program, ins.operands[1], U32), writer(program, ins.operands[0])

    def transpose(g: Group) -> None:
        whole(g, ins, WARP)
        matrix = np.ascontiguousarray(g.spread(read(g))).view(np.uint16).reshape(-1, 8, 8).transpose(0, 2, 1)
        write(g, g.spread_back(np.ascontiguousarray(matrix).reshape(-1).view(U32)))

    return transpose
