"""Floating-point formats and their exact arithmetic: f32, f64, bf16, f16 and the packed pairs.

Sums, products, quotients, roots and fma are f64 rounded to odd, for a rounding of any mode. NaN results are PTX's
canonical ones."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from core.sim.instructions.operands import Read, bits_reader
from core.sim.instructions.rounding import from_bf16, to_bf16, to_f16, to_f32, to_odd, two_product, two_sum
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES, UNSIGNED, Array
from core.sim.ptx.syntax import Operand

NAN64 = np.array([0x7FF8000000000000], np.uint64).view(np.float64)[0]
NAN32 = np.array([0x7FFFFFFF], np.uint32).view(np.float32)[0]
TINY = np.float32(1.1754943508222875e-38)  # the smallest normal f32
SMALL, HUGE = 2.0**-900, 2.0**990  # f64 sizes beyond which the error terms of a product may not be representable
DROPPED, LEAST = np.int64(35), np.iinfo(np.int64).min
LOW, HALF = np.int64(0x1FFFFFFF), np.int64(0x10000000)  # the bits of an f64 that an f32 has no room for; their middle


@dataclass(frozen=True)
class FloatFormat:
    """The arithmetic of a floating-point type: `bits` each, `packed` together in one register."""

    bits: int
    packed: int
    decode: Callable[[Array], Array]
    encode: Callable[[Array, str], Array]  # f64, exact or rounded to odd -> bits
    tiny: float = 2.0**-126  # the smallest normal number

    def flush(self, value: Array) -> Array:
        """.ftz of operands: subnormals become zero and keep their sign."""
        small = np.abs(value) < self.tiny
        return np.where(small, np.copysign(value.dtype.type(0), value), value) if small.any() else value

    def flush_bits(self, bits: Array) -> Array:
        """.ftz of results."""
        small = np.abs(self.decode(bits)) < self.tiny
        sign = bits.dtype.type(1 << self.bits - 1)
        return np.where(small, bits & sign, bits) if small.any() else bits


def _f64_bits(value: Array, mode: str) -> Array:
    return value.view(np.uint64)


def _f32_bits(value: Array, mode: str) -> Array:
    return canonical(to_f32(value, mode)).view(np.uint32)


def _f16_values(bits: Array) -> Array:
    return bits.view(np.float16).astype(np.float32)


FORMATS = {
    "f32": FloatFormat(32, 1, lambda b: b.view(np.float32), _f32_bits),
    "f64": FloatFormat(64, 1, lambda b: b.view(np.float64), _f64_bits, 2.0**-1022),
    "bf16": FloatFormat(16, 1, from_bf16, to_bf16),
    "f16": FloatFormat(16, 1, _f16_values, to_f16, 2.0**-14),
    "f32x2": FloatFormat(32, 2, lambda b: b.view(np.float32), _f32_bits),
    "bf16x2": FloatFormat(16, 2, from_bf16, to_bf16),
    "f16x2": FloatFormat(16, 2, _f16_values, to_f16, 2.0**-14),
}
ROUNDINGS = {"rn": "rn", "rz": "rz", "rm": "rm", "rp": "rp", "rna": "rna"}


def canonical(value: Array) -> Array:
    """Every NaN of an f32 array becomes 0x7FFFFFFF, of an f64 array 0x7FF8000000000000: which operand's payload a
    processor keeps is its own affair."""
    bad = np.isnan(value)
    return np.where(bad, NAN32 if value.dtype == np.float32 else NAN64, value) if bad.any() else value


def flush(value: Array) -> Array:
    """.ftz of f32."""
    return FORMATS["f32"].flush(value)


def saturate(value: Array) -> Array:
    """.sat: into [+0, 1]; NaN becomes +0, and so does -0."""
    zero, one = value.dtype.type(0), value.dtype.type(1)
    return np.asarray(np.where(value > 0, np.minimum(value, one), zero), value.dtype)


def readable(program: Program, operand: Operand, name: str, ftz: bool = False) -> Read:
    """Reads an operand as numbers to compute with: integers as they are, 16-bit floats as f32, pairs as (n, 2)."""
    form = FORMATS.get(name)
    if form is None:
        return bits_reader(program, operand, TYPES[name].numpy)
    values = _values(program, operand, name, form)
    return (lambda g: form.flush(values(g))) if ftz else values


def _values(program: Program, operand: Operand, name: str, form: FloatFormat) -> Read:
    if name in ("f32", "f64"):
        return bits_reader(program, operand, TYPES[name].numpy)
    raw = bits_reader(program, operand, UNSIGNED[form.bits * form.packed])
    if form.packed == 1:
        return lambda g: form.decode(raw(g))
    small = UNSIGNED[form.bits]
    return lambda g: form.decode(np.ascontiguousarray(raw(g)).view(small).reshape(-1, form.packed))


def packed_bits(form: FloatFormat, bits: Array) -> Array:
    """(n, 2) bits -> n registers."""
    if form.packed == 1:
        return bits
    return np.ascontiguousarray(bits).reshape(-1).view(UNSIGNED[form.bits * form.packed])


# --------------------------------------------------------------------------- exact arithmetic in f64
# Each returns f64 rounded to odd, for a rounding in `mode`, which decides the sign of a sum that is zero.
def exact_add(a: Array, b: Array, mode: str) -> Array:
    x, y = a.astype(np.float64), b.astype(np.float64)
    total = to_odd(*two_sum(x, y))
    if mode != "rm":
        return total
    # IEEE 754, 6.3: x + -x is +0, but -0 where rounding is downwards.
    return np.where((total == 0) & (np.signbit(x) | np.signbit(y)), -0.0, total)


def exact_multiply(a: Array, b: Array, mode: str) -> Array:
    """The product of formats up to 24 bits, which f64 holds whole."""
    return np.asarray(a.astype(np.float64) * b.astype(np.float64))


def exact_fma(a: Array, b: Array, c: Array, mode: str) -> Array:
    return exact_add(exact_multiply(a, b, mode), c, mode)


def exact_divide(a: Array, b: Array, mode: str) -> Array:
    x, y = a.astype(np.float64), b.astype(np.float64)
    result = x / y
    lost = x - result * y  # exact when the quotient fits f32, the only case in which its sign matters
    single = result.astype(np.float32).astype(np.float64) == result
    finite = np.isfinite(result) & np.isfinite(y)
    return to_odd(result, np.where(single & finite, lost * np.sign(y), 0.0))


def exact_sqrt(a: Array, mode: str) -> Array:
    x = a.astype(np.float64)
    result = np.sqrt(x)
    single = result.astype(np.float32).astype(np.float64) == result
    return to_odd(result, np.where(single & np.isfinite(result), x - result * result, 0.0))


def fma_f64(a: Array, b: Array, c: Array) -> Array:
    """The single rounding of a * b + c in f64 (Boldo and Melquiond); by integers where that over- or underflows."""
    product, lost = two_product(a, b)
    top, rest = two_sum(c, lost)
    high, low = two_sum(product, top)
    total = high + to_odd(*two_sum(rest, low))
    # A total of zero is exact, and has the sign that the plain sum gives it; a finite product cannot outweigh infinity.
    result = np.where(np.isfinite(high) & (total != 0), total, a * b + c)
    result = np.where(np.isinf(c) & np.isfinite(a) & np.isfinite(b), c, result)
    sizes = [np.abs(v) for v in np.broadcast_arrays(a, b, c, product)]
    wide = np.isfinite(sizes[0]) & np.isfinite(sizes[1]) & np.isfinite(sizes[2]) & (np.maximum.reduce(sizes) > HUGE)
    small = (sizes[0] != 0) & (sizes[1] != 0) & (sizes[3] < SMALL) & (sizes[2] < SMALL)
    for i in np.flatnonzero(wide | small):
        result[i] = _fma_by_integers(*(float(v[i]) for v in np.broadcast_arrays(a, b, c)))
    return result


def _fma_by_integers(a: float, b: float, c: float) -> float:
    """a * b + c of finite f64, exactly, and then Python's division of integers, which rounds to nearest even."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c
    try:
        size = float(abs(exact))
    except OverflowError:
        size = math.inf
    return -size if exact < 0 else size


class _Scratch(threading.local):
    """Two f64 arrays a thread, used again and again so that they stay in the core's cache."""

    shape: tuple[int, ...] = ()
    arrays: tuple[Array, Array]


_SCRATCH = _Scratch()


def scratch(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Two f64 arrays of a shape, of this thread; their contents are anything."""
    if _SCRATCH.shape != shape:
        _SCRATCH.shape = shape
        _SCRATCH.arrays = np.empty(shape), np.empty(shape)
    return _SCRATCH.arrays


def fma_f32(a: Array, b: Array, c: Array) -> Array:
    """The single rounding of a * b + c in f32; a and b are f32 values held in f64, c is f32 (or f64)."""
    product, total = scratch(np.broadcast_shapes(a.shape, b.shape, c.shape))
    np.multiply(a, b, out=product)
    total[...] = c
    np.add(product, total, out=total)
    result = total.astype(np.float32)
    return result if rounded_once(result, total, product) else fma_again(a * b, c.astype(np.float64), result)


def rounded_once(result: Array, total: Array, spare: Array) -> bool:
    """Whether rounding f64 sums `total` to f32 `result` surely equals the rounding of the exact sums.

    f64's sum differs from the exact one only in its last bit; that matters when it is halfway between two f32,
    or below f32's normal range, unless it is zero, which is exact. Half way: of the 29 bits that f32 drops, only the
    top one is set; moved to the top of 64 bits that is the least of all integers. `spare` is overwritten.
    """
    size = np.abs(result)
    if not np.maximum.reduce(size, None) < np.inf:
        return False
    if np.minimum.reduce(size, None) <= TINY and total[size <= TINY].any():
        return False
    moved = np.left_shift(total.view(np.int64), DROPPED, out=spare.view(np.int64))
    return bool(np.minimum.reduce(moved, None) != LEAST)


def fma_again(product: Array, added: Array, result: Array) -> Array:
    """`result` with every element rounded again that two roundings may have spoilt, from exact products in f64."""
    product, added = np.broadcast_arrays(product, added)
    total = product + added
    redo = (((total.view(np.int64) & LOW) == HALF) | (np.abs(result) <= TINY)) & (total != 0)
    if redo.any():
        result[redo] = to_odd(*two_sum(product[redo], added[redo])).astype(np.float32)
    return canonical(result)


def fma_of_singles(a: Array, b: Array, c: Array) -> Array:
    return fma_f32(a.astype(np.float64), b.astype(np.float64), c)
