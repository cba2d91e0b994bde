"""The functions that PTX calls approximate, in f64: one fixed sequence of additions, products and divisions each.

The last bits of exp2 or sin differ between libraries and between processors. Those of these functions do not: every
step is an IEEE 754 operation in a fixed order, so that each executor that takes the same steps gets the same bits. The
results are good to about 2^-48 (sine and cosine beyond 2^20: to 2^-37 absolute), closer to the truth than the
hardware's, and are rounded once by the caller.

Sources: Cody and Waite, "Software Manual for the Elementary Functions", 1980 (splitting pi / 2); Payne and Hanek,
"Radian reduction for trigonometric functions", 1983 (arguments beyond 2^20); Taylor's series for all polynomials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from core.sim.ptx.register_types import Array

MAGIC = 1.5 * 2.0**52  # added to an f64 below 2^51, leaves the nearest integer in its low bits
EX2 = tuple(math.log(2) ** k / math.factorial(k) for k in range(14))
LG2 = tuple(2 / math.log(2) / (2 * k + 1) for k in range(13))
SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9))
COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(9))
TANH = (
    1.0, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875,
    6404582 / 10854718875, -443861162 / 1856156927625,
)  # fmt: skip
TWO_LOG2_E = 2 / math.log(2)
# pi / 2 in three parts, of which the first two have 33 bits, so that their products with 20-bit integers are exact.
HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
OVER_HALF_PI = 2 / math.pi
HALF_TURN = math.pi / 2 * 2.0**-62
FAR = 2.0**20  # from here on the argument is reduced by the bits of 2 / pi
# The bits of 2 / pi after the binary point, in 64-bit words.
TWO_OVER_PI = np.array([0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561], np.uint64)


def polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    """The sum of coefficients[k] * x^k, by Horner's rule: one product and one sum a step."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        np.multiply(total, x, out=total)
        np.add(total, coefficient, out=total)
    return total


def nearest(x: Array) -> tuple[Array, Array]:
    """For |x| < 2^51: (the nearest integer as f64, its low 32 bits in the low 32 bits of an int64)."""
    shifted = x + MAGIC
    return shifted - MAGIC, shifted.view(np.int64)


def ex2(x: Array) -> Array:
    """2^x."""
    x = np.minimum(np.maximum(x, -1000.0), 1000.0)
    whole, bits = nearest(x)
    scale = ((bits + 1023) << 52).view(np.float64)
    return polynomial(x - whole, EX2) * scale


def lg2(x: Array) -> Array:
    """The logarithm to base 2; -infinity of zero, NaN of a negative number. x: f32 values, so no f64 is subnormal."""
    bits = np.ascontiguousarray(x).view(np.int64)
    # The mantissa within [sqrt(1/2), sqrt(2)), and the power of two that goes with it.
    power = (bits - 0x3FE6A09E667F3BCD) >> 52
    mantissa = (bits - (power << 52)).view(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    result = power.astype(np.float64) + s * polynomial(s * s, LG2)
    result = np.where(x > 0, result, np.where(x == 0, -np.inf, np.nan))
    return np.where(x == np.inf, np.inf, result)


def sin(x: Array) -> Array:
    """The sine of f32 values in radians; NaN of infinities."""
    return _turned(x, 0)


def cos(x: Array) -> Array:
    """The cosine of f32 values in radians; NaN of infinities."""
    return _turned(x, 1)


def _turned(x: Array, ahead: int) -> Array:
    """The sine, `ahead` quarter turns further on."""
    rest, quarters = _near(x)
    far = ~(np.abs(x) < FAR)
    if far.any():
        rest[far], quarters[far] = _far(x[far])
    quarters = quarters + ahead
    square = rest * rest
    result = np.where((quarters & 1) == 0, rest * polynomial(square, SIN), polynomial(square, COS))
    result = np.where((quarters & 2) == 0, result, -result)
    return np.where(np.isfinite(x), result, np.nan)


def _near(x: Array) -> tuple[Array, Array]:
    """For |x| < 2^20: (x less the nearest multiple of pi / 2, that multiple modulo 2^32)."""
    whole, bits = nearest(x * OVER_HALF_PI)
    return ((x - whole * HALF_PI[0]) - whole * HALF_PI[1]) - whole * HALF_PI[2], bits & 0xFFFFFFFF


def _far(x: Array) -> tuple[Array, Array]:
    """`_near` for |x| >= 2^20: x is m * 2^e, and m times the bits of 2 / pi from weight 2^(1 - e) down is counted
    modulo four quarter turns, in 64 bits."""
    bits = x.view(np.uint64)
    mantissa = (bits >> np.uint64(29)) & np.uint64(0x7FFFFF) | np.uint64(0x800000)
    first = ((bits >> np.uint64(52)) & np.uint64(0x7FF)).astype(np.int64) - (1023 + 23 + 2)
    first = np.minimum(first, 128)
    word, shift = np.maximum(first, 0) >> 6, (np.maximum(first, 0) & 63).astype(np.uint64)
    above = np.maximum(-first, 0).astype(np.uint64)  # 2 / pi has no bits above the binary point
    window = (TWO_OVER_PI[word] << shift) | ((TWO_OVER_PI[word + 1] >> np.uint64(1)) >> (np.uint64(63) - shift))
    turns = mantissa * (window >> above)
    quarters = (turns + np.uint64(1 << 61)) >> np.uint64(62)
    rest = (turns - (quarters << np.uint64(62))).view(np.int64).astype(np.float64) * HALF_TURN
    below = x < 0
    return np.where(below, -rest, rest), np.where(below, -quarters.view(np.int64), quarters.view(np.int64))


def tanh(x: Array) -> Array:
    """The hyperbolic tangent: Taylor's series below 1/8, else (e - 1) / (e + 1) of e = exp(2 |x|)."""
    size = np.minimum(np.abs(x), 40.0)
    e = ex2(size * TWO_LOG2_E)
    large = (e - 1.0) / (e + 1.0)
    result = np.where(size < 0.125, size * polynomial(size * size, TANH), large)
    return np.copysign(result, x)


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "rcp": lambda x: 1.0 / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "ex2": ex2,
    "lg2": lg2,
    "sin": sin,
    "cos": cos,
    "tanh": tanh,
}
