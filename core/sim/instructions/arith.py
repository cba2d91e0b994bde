"""Integer and logic instructions. Widths wrap as on the hardware; NumPy's unsigned arithmetic does the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, bits_reader, reader, writer
from core.sim.ptx.parser import Instruction, Pair
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import BOOL, SIGNED, TYPES, UNSIGNED, Array
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
    found = find_highest(a)
    return np.where(found == ~np.uint32(0), found, np.uint32(8 * a.dtype.itemsize - 1) - found)


INTEGER: dict[str, tuple[Compute, str]] = {
    "add": (lambda a, b: a + b, "$int"),
    "sub": (lambda a, b: a - b, "$int"),
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
    "min": (np.minimum, "$int"),
    "max": (np.maximum, "$int"),
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
    """An instruction of INTEGER."""
    both = ".".join(ins.names[:2])
    return integer(program, ins, INTEGER[both if both in INTEGER else ins.names[0]][0])


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


@opcode("shf", "l/r clamp/wrap b32")
def _funnel(program: Program, ins: Instruction) -> Step:
    """shf.{l,r}.{clamp,wrap}.b32 d, a, b, c: 32 bits out of b:a, shifted by c."""
    low, high, by = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:4])
    write = writer(program, ins.operands[0])
    left, clamp = ins.names[1] == "l", ins.names[2] == "clamp"
    half = np.uint64(32)

    def funnel(g: Group) -> None:
        count = by(g)
        count = (np.minimum(count, 32) if clamp else count & np.uint32(31)).astype(np.uint64)
        both = (high(g).astype(np.uint64) << half) | low(g)
        if left:
            # A shift by 32 within 64 bits, in two halves: the upper word of both << count.
            write(g, ((both << count) >> half).astype(np.uint32))
        else:
            write(g, (both >> count).astype(np.uint32))

    return funnel


@opcode("bfe", "u32/u64/s32/s64")
def _bit_field_extract(program: Program, ins: Instruction) -> Step:
    kind = TYPES[ins.names[-1]]
    value = reader(program, ins.operands[1], kind)
    start, length = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[2:4])
    write, bits = writer(program, ins.operands[0]), kind.bits

    def extract(g: Group) -> None:
        a, at, n = value(g), start(g) & np.uint32(255), length(g) & np.uint32(255)
        width = np.minimum(n, bits).astype(np.int64)
        low = np.minimum(at, bits).astype(np.int64)
        wide = a.astype(np.int64 if kind.kind == "s" else np.uint64)
        beyond = wide >> wide.dtype.type(63) if kind.kind == "s" else np.zeros_like(wide)
        shifted = np.where(low >= 64, beyond, wide >> np.minimum(low, 63).astype(wide.dtype))
        mask = np.where(width >= 64, np.uint64(2**64 - 1), (np.uint64(1) << width.astype(np.uint64)) - np.uint64(1))
        field = shifted.astype(np.uint64) & mask
        if kind.kind == "s":
            # The sign is the field's top bit, or the value's when the field reaches past it.
            top = np.minimum(low + width - 1, bits - 1)
            sign = (wide >> np.maximum(top, 0)) & 1
            field = np.where((sign == 1) & (width > 0), field | ~mask, field)
        write(g, np.where(width == 0, np.uint64(0), field).astype(UNSIGNED[bits]))

    return extract


@opcode("bfi", "b32/b64")
def _bit_field_insert(program: Program, ins: Instruction) -> Step:
    """bfi d, a, b, start, length: a's low bits into b."""
    bits = TYPES[ins.names[-1]].bits
    reads = [bits_reader(program, o, UNSIGNED[bits]) for o in ins.operands[1:3]]
    start, length = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[3:5])
    write = writer(program, ins.operands[0])

    def insert(g: Group) -> None:
        a, b = (read(g).astype(np.uint64) for read in reads)
        at = (start(g) & np.uint32(255)).astype(np.uint64)
        n = np.minimum(length(g) & np.uint32(255), bits).astype(np.uint64)
        ones = np.where(n >= 64, np.uint64(2**64 - 1), (np.uint64(1) << n) - np.uint64(1))
        moved = np.where(at >= bits, np.uint64(0), ones << np.minimum(at, 63).astype(np.uint64))
        write(g, ((b & ~moved) | ((a << np.minimum(at, 63).astype(np.uint64)) & moved)).astype(UNSIGNED[bits]))

    return insert


# prmt's modes: (c's two low bits, the byte's place in the result) -> its place in b:a
BYTES: dict[str, Callable[[int, int], int]] = {
    "f4e": lambda i, k: i + k,
    "b4e": lambda i, k: (i - k) & 7,
    "rc8": lambda i, k: i,
    "ecl": lambda i, k: max(i, k),
    "ecr": lambda i, k: min(i, k),
    "rc16": lambda i, k: 2 * (i & 1) + (k & 1),
}
PLACES = {mode: np.array([[of(i, k) for k in range(4)] for i in range(4)]) for mode, of in BYTES.items()}


@opcode("prmt", "b32 f4e/b4e/rc8/ecl/ecr/rc16?")
def _permute(program: Program, ins: Instruction) -> Step:
    """prmt.b32 d, a, b, c: four bytes of b:a chosen by c's nibbles; a nibble's top bit repeats the byte's sign."""
    if ins.names[-1] in PLACES:
        return _permute_by_mode(program, ins)
    a, b, c = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:4])
    write = writer(program, ins.operands[0])

    def permute(g: Group) -> None:
        both = a(g).astype(np.uint64) | (b(g).astype(np.uint64) << np.uint64(32))
        chosen = c(g).astype(np.uint64)
        result = np.zeros(1, np.uint64)
        for i in range(4):
            nibble = (chosen >> np.uint64(4 * i)) & np.uint64(15)
            octet = (both >> ((nibble & np.uint64(7)) * np.uint64(8))) & np.uint64(255)
            octet = np.where(nibble >= 8, np.where(octet >= 128, np.uint64(255), np.uint64(0)), octet)
            result = result | (octet << np.uint64(8 * i))
        write(g, result.astype(np.uint32))

    return permute


def _permute_by_mode(program: Program, ins: Instruction) -> Step:
    """prmt.b32.mode d, a, b, c: one of four choices of bytes, by c's two low bits."""
    a, b, c = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:4])
    write, places = writer(program, ins.operands[0]), PLACES[ins.names[-1]]

    def permute(g: Group) -> None:
        both = np.stack([g.spread(a(g)), g.spread(b(g))], 1).view(np.uint8)
        chosen = places[g.spread(c(g)) & np.uint32(3)]
        octets = np.take_along_axis(both, chosen, 1)
        write(g, g.spread_back(np.ascontiguousarray(octets).view(np.uint32).reshape(-1)))

    return permute


def _ones_from(place: Array) -> Array:
    """Words whose bits from `place` (0 to 63) up are set."""
    return np.asarray((np.uint64(0xFFFFFFFF) << place.astype(np.uint64)).astype(np.uint32))


@opcode("bmsk", "clamp/wrap b32")
def _bit_mask(program: Program, ins: Instruction) -> Step:
    """bmsk.mode.b32 d, a, b: a mask of b bits from bit a up."""
    a, b = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:3])
    write, clamp = writer(program, ins.operands[0]), ins.names[1] == "clamp"

    def mask(g: Group) -> None:
        at, width = a(g), b(g)
        low, end = at & np.uint32(31), (at & np.uint32(31)) + (width & np.uint32(31))
        ones, beyond = _ones_from(low), _ones_from(np.minimum(end, np.uint32(32)))
        if clamp:
            ones = np.where(at >= 32, np.uint32(0), ones)
            beyond = np.where((at >= 32) | (width >= 32), np.uint32(0), beyond)
        write(g, ones & ~beyond)

    return mask


@opcode("szext", "clamp/wrap u32/s32")
def _extend(program: Program, ins: Instruction) -> Step:
    """szext.mode.type d, a, b: the low b bits of a, with their sign or with zeros above."""
    a, b = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:3])
    write, clamp, signed = writer(program, ins.operands[0]), ins.names[1] == "clamp", ins.names[-1] == "s32"

    def extend(g: Group) -> None:
        value, count = a(g), b(g)
        width = count & np.uint32(31)
        large = (count >= 32) & clamp
        above = np.where(large, np.uint32(0), _ones_from(width))
        sign = (value >> ((width - np.uint32(1)) & np.uint32(31))) & np.uint32(1) == 1
        negative = sign & (width != 0) & ~large & signed
        write(g, (value & ~above) | np.where(negative, above, np.uint32(0)))

    return extend


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


@opcode("lop3", "b32 | or/and b32")
def _lop3(program: Program, ins: Instruction) -> Step:
    """Any logic of three inputs, by its truth table: bit (a << 2 | b << 1 | c) of the immediate.

    lop3.op.b32 d|p, a, b, c, table, q also sets p to (d != 0) op q.
    """
    a, b, c = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:4])
    table = int(getattr(ins.operands[4], "bits", 0))
    target, combine = ins.operands[0], {"or": np.logical_or, "and": np.logical_and}.get(ins.names[1])
    write = writer(program, target.first if isinstance(target, Pair) else target)
    holds = writer(program, target.second) if isinstance(target, Pair) else None
    also = bits_reader(program, ins.operands[5], BOOL) if combine is not None else None
    terms = [i for i in range(8) if table >> i & 1]

    def logic(g: Group) -> None:
        x, y, z = a(g), b(g), c(g)
        result = np.zeros(1, np.uint32)
        for term in terms:
            result = result | ((x if term & 4 else ~x) & (y if term & 2 else ~y) & (z if term & 1 else ~z))
        given = also(g) if also is not None else None
        write(g, result)
        if holds is not None and combine is not None and given is not None:
            holds(g, combine(result != 0, given))

    return logic


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


@opcode("fns", "b32")
def _find_nth_set(program: Program, ins: Instruction) -> Step:
    """fns.b32 d, mask, base, offset: the offset-th bit that is set, from bit base up, or down for a negative offset."""
    mask, base = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:3])
    offset, write = bits_reader(program, ins.operands[3], SIGNED[32]), writer(program, ins.operands[0])
    bits = np.arange(32)

    def find(g: Group) -> None:
        start, nth = (g.spread(read(g)).astype(np.int64)[:, None] for read in (base, offset))
        given = (g.spread(mask(g))[:, None] >> bits.astype(np.uint32)) & np.uint32(1) == 1
        below = nth < 0
        asked = given & np.where(below, bits <= start, np.where(nth == 0, bits == start, bits >= start))
        upwards = np.cumsum(asked, 1)
        count = np.where(below, upwards[:, -1:] - upwards + 1, upwards)
        hit = asked & (count == np.maximum(np.abs(nth), 1))
        write(g, g.spread_back(np.where(hit.any(1), hit.argmax(1), -1).astype(np.uint32)))

    return find


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
