"""Bits and bytes within words: funnel shifts, fields, masks, permutations, logic by a truth table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, bits_reader, reader, writer
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import BOOL, SIGNED, TYPES, UNSIGNED, Array
from core.sim.ptx.syntax import Instruction, Pair
from core.sim.resident import Group

FAMILY = Family(pure=True)
opcode = FAMILY.opcode


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
        flag = also(g) if also is not None else None
        write(g, result)
        if holds is not None and combine is not None and flag is not None:
            holds(g, combine(result != 0, flag))

    return logic


@opcode("fns", "b32")
def _find_nth_set(program: Program, ins: Instruction) -> Step:
    """fns.b32 d, mask, base, offset: the offset-th bit that is set, from bit base up, or down for a negative offset."""
    mask, base = (bits_reader(program, o, UNSIGNED[32]) for o in ins.operands[1:3])
    offset, write = bits_reader(program, ins.operands[3], SIGNED[32]), writer(program, ins.operands[0])
    bits = np.arange(32)

    def find(g: Group) -> None:
        start, nth = (g.spread(read(g)).astype(np.int64)[:, None] for read in (base, offset))
        set_bits = (g.spread(mask(g))[:, None] >> bits.astype(np.uint32)) & np.uint32(1) == 1
        below = nth < 0
        candidates = set_bits & np.where(below, bits <= start, np.where(nth == 0, bits == start, bits >= start))
        upwards = np.cumsum(candidates, 1)
        count = np.where(below, upwards[:, -1:] - upwards + 1, upwards)
        hit = candidates & (count == np.maximum(np.abs(nth), 1))
        write(g, g.spread_back(np.where(hit.any(1), hit.argmax(1), -1).astype(np.uint32)))

    return find
