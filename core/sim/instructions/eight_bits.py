"""cvt to and from pairs of 8-bit floats: e4m3 (4 bits of exponent, no infinity, largest 448) and e5m2 (largest 57,344).

Rounding is to nearest, ties to even; a number that is too large becomes the largest one, a NaN 0x7f. PTX ISA, cvt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.sim.instructions.float_formats import readable
from core.sim.instructions.operands import Step, bits_reader, need, writer
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction
from core.sim.resident import Group

FORMS = "rn satfinite relu? e4m3x2/e5m2x2 f32/f16x2 | rn relu? f16x2 e4m3x2/e5m2x2"
NAN, NAN16 = 0x7F, 0x7FFF


@dataclass(frozen=True)
class EightBits:
    """mantissa: bits; least: the exponent of the smallest normal number; most: the largest; special: the first code
    without a sign that is no number: NaN, or infinity."""

    mantissa: int
    least: int
    most: float
    special: int

    def encode(self, value: Array) -> Array:
        """Numbers in f32 or f64 -> codes."""
        wide = value.astype(np.float64)
        bad, size = np.isnan(wide), np.minimum(np.abs(np.where(np.isnan(wide), 0.0, wide)), self.most)
        exponent = np.maximum(np.frexp(size)[1] - 1, self.least)
        digits = np.rint(np.ldexp(size, self.mantissa - exponent)).astype(np.int64)
        unit = 1 << self.mantissa
        code = np.where(digits < unit, digits, (exponent - self.least + 1 << self.mantissa) + digits - unit)
        return np.where(bad, NAN, code | np.signbit(wide).astype(np.int64) << 7).astype(np.uint32)

    def decode(self, codes: Array, relu: bool) -> Array:
        """Codes -> the bits of f16, which holds all of them."""
        size = (codes & 0x7F).astype(np.int64)
        field, digits = size >> self.mantissa, size & ((1 << self.mantissa) - 1)
        whole = np.where(field > 0, digits | 1 << self.mantissa, digits)
        value = np.ldexp(whole.astype(np.float64), np.maximum(field, 1) - 1 + self.least - self.mantissa)
        value = np.where(size >= self.special, np.where(digits > 0, np.nan, np.inf), value)
        value = np.where((codes & 0x80) > 0, 0.0 if relu else -value, value)
        bits = value.astype(np.float16).view(np.uint16).astype(np.uint32)
        return np.where((digits > 0) & (size >= self.special), NAN16, bits).astype(np.uint32)


EIGHT_BITS = {"e4m3x2": EightBits(3, -6, 448.0, 0x7F), "e5m2x2": EightBits(2, -14, 57344.0, 0x7C)}


def convert(program: Program, ins: Instruction) -> Step:
    """cvt of a pair; of two f32 the first is the upper half."""
    to, of, relu = ins.names[-2], ins.names[-1], "relu" in ins.names
    write = writer(program, ins.operands[0])
    if of in EIGHT_BITS:
        read = bits_reader(program, ins.operands[1], np.dtype(np.uint16))

        def widen(g: Group) -> None:
            codes = read(g).astype(np.uint32)
            low, high = (EIGHT_BITS[of].decode(codes >> np.uint32(at) & np.uint32(0xFF), relu) for at in (0, 8))
            write(g, low | high << np.uint32(16))

        return widen
    need(ins, len(ins.operands) == (3 if of == "f32" else 2))
    reads = [readable(program, o, of) for o in ins.operands[1:]]

    def narrow(g: Group) -> None:
        values = [read(g) for read in reads]
        low, high = (values[1], values[0]) if of == "f32" else (values[0][:, 0], values[0][:, 1])
        if relu:
            low, high = (np.where(v < 0, v.dtype.type(0), np.where(v == 0, np.abs(v), v)) for v in (low, high))
        codes = EIGHT_BITS[to].encode(low) | EIGHT_BITS[to].encode(high) << np.uint32(8)
        write(g, codes.astype(np.uint16))

    return narrow
