"""Integer and logic instructions. Widths wrap as on the hardware; NumPy's unsigned arithmetic does the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, bits_reader, reader, writer
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import SIGNED, TYPES, UNSIGNED, Array
from core.sim.ptx.syntax import Instruction
from core.sim.resident import Group

FAMILY = Family(pure=True)
opcode = FAMILY.opcode

Compute = Callable[..., Array]


def integer(program: Program, ins: Instruction, compute: Compute) -> Step:
    """d = compute(a, b, ...) in the instruction's own type."""
    kind = TYPES[ins.names[-1]]
    reads = [reader(program, o, kind) for o in ins.operands[1:]]
    write = writer(program, ins.operands[0])
    if len(reads) == 1:
        one = reads[0]
        return lambda g: write(g, compute(one(g)))
    if len(reads) == 2:
        first, second = reads
        return lambda g: write(g, compute(first(g), second(g)))
    return lambda g: write(g, compute(*(read(g) for read in reads)))


def widened(dtype: np.dtype[Any]) -> np.dtype[Any]:
    table = SIGNED if dtype.kind == "i" else UNSIGNED
    return table[16 * dtype.itemsize]


def wide_product(a: Array, b: Array) -> Array:
    wide = widened(a.dtype)
    product: Array = a.astype(wide) * b.astype(wide)
    return product


def high_product(a: Array, b: Array) -> Array:
    """The upper half of the double-width product."""
    if a.dtype.itemsize < 8:
        narrow: Array = (wide_product(a, b) >> (8 * a.dtype.itemsize)).astype(a.dtype)
        return narrow
    ua, ub = a.view(np.uint64), b.view(np.uint64)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = ua >> half, ua & low, ub >> half, ub & low
    middle = a1 * b0 + ((a0 * b0) >> half)
    other = a0 * b1 + (middle & low)
    high = a1 * b1 + (middle >> half) + (other >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, ub, np.uint64(0)) - np.where(b < 0, ua, np.uint64(0))
    return np.asarray(high.view(a.dtype))


def product24(a: Array, b: Array) -> Array:
    """The upper 32 of the 48 bits of a product of 24-bit numbers."""
    return np.asarray((wide_product(a << 8 >> 8, b << 8 >> 8) >> 16).astype(a.dtype))


def quotient(a: Array, b: Array) -> Array:
    """Truncates toward zero; a division by zero gives all ones, as the hardware does."""
    safe = np.where(b == 0, 1, b).astype(b.dtype)
    if a.dtype.kind == "u":
        return np.where(b == 0, np.array(-1).astype(a.dtype), a // safe)
    result = a // safe
    result = result + ((result < 0) & (result * safe != a))
    return np.where(b == 0, np.array(-1, a.dtype), result).astype(a.dtype)


def remainder(a: Array, b: Array) -> Array:
    """The sign of the dividend; modulo zero gives the dividend."""
    safe = np.where(b == 0, 1, b).astype(b.dtype)
    return np.where(b == 0, a, np.fmod(a, safe)).astype(a.dtype)


def shift_left(a: Array, by: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    if by.size == 1:
        count = int(by[0])
        return np.asarray(np.left_shift(a, a.dtype.type(count))) if count < bits else np.asarray(np.zeros_like(a))
    return np.asarray(np.where(by >= bits, a.dtype.type(0), a << np.minimum(by, bits - 1).astype(a.dtype)))


def shift_right(a: Array, by: Array) -> Array:
    """Arithmetic where `a` is signed; a shift by the width or more leaves only the sign."""
    bits = 8 * a.dtype.itemsize
    if a.dtype.kind == "i":
        return np.asarray(np.right_shift(a, np.minimum(by, bits - 1).astype(a.dtype)))
    if by.size == 1:
        count = int(by[0])
        return np.asarray(np.right_shift(a, a.dtype.type(count))) if count < bits else np.asarray(np.zeros_like(a))
    return np.asarray(np.where(by >= bits, a.dtype.type(0), a >> np.minimum(by, bits - 1).astype(a.dtype)))


def absolute_difference(a: Array, b: Array, c: Array) -> Array:
    return c + np.where(a < b, b - a, a - b)


def count_ones(a: Array) -> Array:
    return np.bitwise_count(a).astype(np.uint32)


def leading_zeros(a: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    filled = a
    for by in (1, 2, 4, 8, 16, 32):
        if by < bits:
            filled = filled | (filled >> a.dtype.type(by))
    return (bits - np.bitwise_count(filled).astype(np.int64)).astype(np.uint32)


def bit_reverse(a: Array) -> Array:
    table = np.array([int(f"{i:08b}"[::-1], 2) for i in range(256)], np.uint8)
    octets = np.ascontiguousarray(a).view(np.uint8).reshape(-1, a.dtype.itemsize)
    return np.ascontiguousarray(table[octets[:, ::-1]]).view(a.dtype).reshape(-1)


def find_highest(a: Array) -> Array:
    """bfind: the position of the top bit (for signed, the top bit that differs from the sign); all ones for none."""
    u = np.where(a < 0, ~a, a) if a.dtype.kind == "i" else a
    zeros = leading_zeros(u.view(UNSIGNED[8 * a.dtype.itemsize]))
    return np.uint32(8 * a.dtype.itemsize - 1) - zeros


def shift_to_top(a: Array) -> Array:
    """bfind.shiftamt: how far left that bit has to go to become the top bit; all ones for none."""
    highest = find_highest(a)
    return np.where(highest == ~np.uint32(0), highest, np.uint32(8 * a.dtype.itemsize - 1) - highest)


EXTREME = "$int | u16x2/s16x2 | relu s32/s16x2"
INTEGER: dict[str, tuple[Compute, str]] = {
    "add": (lambda a, b: a + b, "$int | sat s32 | u16x2/s16x2"),
    "sub": (lambda a, b: a - b, "$int | sat s32"),
    "mul.lo": (lambda a, b: a * b, "$int"),
    "mul.hi": (high_product, "$int"),
    "mul.wide": (wide_product, "u16/u32/s16/s32"),
    "mul24.lo": (lambda a, b: (a << 8 >> 8) * (b << 8 >> 8), "u32/s32"),
    "mul24.hi": (lambda a, b: product24(a, b), "u32/s32"),
    "mad24.lo": (lambda a, b, c: (a << 8 >> 8) * (b << 8 >> 8) + c, "u32/s32"),
    "mad24.hi": (lambda a, b, c: product24(a, b) + c, "u32/s32"),
    "mad.lo": (lambda a, b, c: a * b + c, "$int"),
    "mad.hi": (lambda a, b, c: high_product(a, b) + c, "$int"),
    "sad": (absolute_difference, "$int"),
    "div": (quotient, "$int"),
    "rem": (remainder, "$int"),
    "min": (np.minimum, EXTREME),
    "max": (np.maximum, EXTREME),
    "neg": (lambda a: -a, "$signed"),
    "abs": (np.abs, "$signed"),
    "and": (np.bitwise_and, "$logic"),
    "or": (np.bitwise_or, "$logic"),
    "xor": (np.bitwise_xor, "$logic"),
    "not": (np.invert, "$logic"),
    "cnot": (lambda a: (a == 0).astype(a.dtype), "$bits"),
    "popc": (count_ones, "b32/b64"),
    "clz": (leading_zeros, "b32/b64"),
    "brev": (bit_reverse, "b32/b64"),
    "bfind": (find_highest, "u32/u64/s32/s64"),
    "bfind.shiftamt": (shift_to_top, "u32/u64/s32/s64"),
}


def integer_step(program: Program, ins: Instruction) -> Step:
    """An instruction of INTEGER, of numbers or of pairs of 16-bit ones."""
    both = ".".join(ins.names[:2])
    compute = INTEGER[both if both in INTEGER else ins.names[0]][0]
    if "sat" in ins.names:
        compute = saturated(compute)
    if "relu" in ins.names:
        compute = not_negative(compute)
    return pairs(program, ins, compute) if ins.names[-1].endswith("16x2") else integer(program, ins, compute)


def saturated(compute: Compute) -> Compute:
    """A sum of 32-bit numbers that stays within them."""
    ends = np.iinfo(np.int32)
    return lambda *values: np.clip(compute(*(v.astype(np.int64) for v in values)), ends.min, ends.max).astype(np.int32)


def not_negative(compute: Compute) -> Compute:
    def relu(*values: Array) -> Array:
        result = compute(*values)
        return np.asarray(np.maximum(result, result.dtype.type(0)))

    return relu


def pairs(program: Program, ins: Instruction, compute: Compute) -> Step:
    """d = compute(a, b) of each half of 32 bits separately."""
    half = np.dtype(np.int16 if ins.names[-1] == "s16x2" else np.uint16)
    reads = [bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:]]
    write = writer(program, ins.operands[0])

    def both(g: Group) -> None:
        values = [read(g) for read in reads]
        low, high = (
            compute(*((v >> np.uint32(at)).astype(np.uint16).view(half) for v in values)).view(np.uint16)
            for at in (0, 16)
        )
        write(g, low | (high.astype(np.uint32) << np.uint32(16)))

    return both


@opcode("mad.wide", "u16/u32/s16/s32")
def _mad_wide(program: Program, ins: Instruction) -> Step:
    kind = TYPES[ins.names[-1]]
    a, b = (reader(program, o, kind) for o in ins.operands[1:3])
    c = bits_reader(program, ins.operands[3], widened(kind.numpy))
    write = writer(program, ins.operands[0])
    return lambda g: write(g, wide_product(a(g), b(g)) + c(g))


SHARED_NAMES = ("add", "sub", "min", "max", "neg", "abs", "div")  # floats have them too: see floats.py
for _name, (_compute, _forms) in INTEGER.items():
    if _name not in SHARED_NAMES:
        opcode(_name, _forms)(integer_step)


@opcode("shl", "$bits")
@opcode("shr", "$bits/$int")
def _shift(program: Program, ins: Instruction) -> Step:
    kind = TYPES[ins.names[-1]]
    read, by = reader(program, ins.operands[1], kind), bits_reader(program, ins.operands[2], UNSIGNED[32])
    write, compute = writer(program, ins.operands[0]), shift_left if ins.names[0] == "shl" else shift_right
    return lambda g: write(g, compute(read(g), by(g)))


@opcode("dp2a", "lo/hi u32/s32 u32/s32")
def _dot2(program: Program, ins: Instruction) -> Step:
    """Two products of 16 by 8 bits, of b's lower or upper two bytes, added to a 32-bit sum."""
    half = np.dtype(np.int16 if ins.names[2] == "s32" else np.uint16)
    octet = np.dtype(np.int8 if ins.names[3] == "s32" else np.uint8)
    a, b, c = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:4])
    write, first = writer(program, ins.operands[0]), 0 if ins.names[1] == "lo" else 2

    def dot(g: Group) -> None:
        x, y, z = (np.ascontiguousarray(g.spread(read(g))) for read in (a, b, c))
        halves = x.view(half).reshape(-1, 2).astype(np.int64)
        octets = y.view(octet).reshape(-1, 4)[:, first : first + 2].astype(np.int64)
        write(g, g.spread_back(((halves * octets).sum(1) + z).astype(np.uint32)))

    return dot


@opcode("add.cc", "u32/u64/s32/s64")
@opcode("addc", "cc? u32/u64/s32/s64")
@opcode("sub.cc", "u32/u64/s32/s64")
@opcode("subc", "cc? u32/u64/s32/s64")
def _carry(program: Program, ins: Instruction) -> Step:
    """Multi-word arithmetic through the carry flag, which has a register of its own."""
    kind = TYPES[ins.names[-1]]
    names = ins.names
    flag = program.carry()
    a, b = (bits_reader(program, o, UNSIGNED[kind.bits]) for o in ins.operands[1:3])
    write, carry, keep = (
        writer(program, ins.operands[0]),
        bits_reader(program, flag, UNSIGNED[32]),
        writer(program, flag),
    )
    subtract, takes, sets = names[0].startswith("sub"), names[0].endswith("c"), "cc" in names

    def compute(g: Group) -> None:
        x, y = a(g), b(g)
        extra = carry(g).astype(x.dtype) if takes else np.zeros(1, x.dtype)
        if subtract:
            first = x - y
            result = first - extra
            out = (x < y) | (first < extra)
        else:
            first = x + y
            result = first + extra
            out = (first < x) | (result < first)
        write(g, result)
        if sets:
            keep(g, out.astype(np.uint32))

    return compute


@opcode("mad.lo.cc", "u32/u64/s32/s64")
@opcode("mad.hi.cc", "u32/u64/s32/s64")
@opcode("madc.lo", "cc? u32/u64/s32/s64")
@opcode("madc.hi", "cc? u32/u64/s32/s64")
def _multiply_carry(program: Program, ins: Instruction) -> Step:
    """mad and madc: half of a product, plus c, plus the carry flag; .cc leaves the carry of that sum."""
    kind, names, flag = TYPES[ins.names[-1]], ins.names, program.carry()
    raw = UNSIGNED[kind.bits]
    a, b = (reader(program, o, kind) for o in ins.operands[1:3])
    added, write = bits_reader(program, ins.operands[3], raw), writer(program, ins.operands[0])
    carry, keep = bits_reader(program, flag, UNSIGNED[32]), writer(program, flag)
    takes, sets, high = names[0] == "madc", "cc" in names, names[1] == "hi"

    def compute(g: Group) -> None:
        x, y, z = a(g), b(g), added(g)
        half = (high_product(x, y) if high else np.asarray(x * y)).view(raw)
        first = half + z
        result = first + carry(g).astype(raw) if takes else first
        write(g, result)
        if sets:
            keep(g, ((first < half) | (result < first)).astype(np.uint32))

    return compute


@opcode("dp4a", "u32/s32 u32/s32")
def _dot4(program: Program, ins: Instruction) -> Step:
    """Four 8-bit products added to a 32-bit sum."""
    signs = [np.dtype(np.int8) if n == "s32" else np.dtype(np.uint8) for n in ins.names[1:3]]
    a, b, c = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:4])
    write = writer(program, ins.operands[0])

    def dot(g: Group) -> None:
        x, y, z = (g.spread(read(g)) for read in (a, b, c))
        parts = [
            np.ascontiguousarray(v).view(s).reshape(-1, 4).astype(np.int64) for v, s in zip((x, y), signs, strict=True)
        ]
        write(g, g.spread_back(((parts[0] * parts[1]).sum(1) + z).astype(np.uint32)))

    return dot
