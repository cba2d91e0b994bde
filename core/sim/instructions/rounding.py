"""Exact results and their rounding: the part of IEEE 754 that NumPy does not offer.

A result is first held in f64, rounded to odd (the last bit is set when something was lost). Rounding that once
more to any narrower format is then the same as rounding the exact result, in every mode. Boldo and Melquiond,
"Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008.
"""

from __future__ import annotations

import numpy as np

from core.sim.ptx.register_types import Array

MODES = ("rn", "rz", "rm", "rp", "rna")
ONE = np.int64(1)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """f64: (a + b rounded, the rounding error), Knuth."""
    total = a + b
    other = total - a
    lost = (a - (total - other)) + (b - other)
    return total, np.where(np.isfinite(total), lost, 0.0)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """f64: (a * b rounded, the rounding error), Dekker and Veltkamp; exact barring over- and underflow."""

    def halves(x: Array) -> tuple[Array, Array]:
        scaled = x * 134217729.0  # 2^27 + 1
        high = scaled - (scaled - x)
        return high, x - high

    product = a * b
    (ah, al), (bh, bl) = halves(a), halves(b)
    lost = ((ah * bh - product) + ah * bl + al * bh) + al * bl
    return product, np.where(np.isfinite(product) & np.isfinite(lost), lost, 0.0)


def to_odd(value: Array, lost: Array) -> Array:
    """f64 `value` + a smaller `lost` -> f64 rounded to odd."""
    bits = value.view(np.int64)
    even = ((bits & ONE) == 0) & (lost != 0)
    away = (lost > 0) == (value > 0)
    return np.where(even, bits + np.where(away, ONE, -ONE), bits).view(np.float64)


def to_f64(value: Array, lost: Array, mode: str) -> Array:
    """f64 `value`, the nearest to an exact result, and its error -> f64 in a rounding mode."""
    down, up = np.nextafter(value, -np.inf), np.nextafter(value, np.inf)
    below, above = np.where(lost < 0, down, value), np.where(lost > 0, up, value)
    return {"rn": value, "rm": below, "rp": above, "rz": np.where(value > 0, below, above)}[mode]


def to_f32(value: Array, mode: str = "rn") -> Array:
    """f64 (exact, or rounded to odd) -> f32 in a rounding mode."""
    nearest = value.astype(np.float32)
    if mode == "rn":
        return nearest
    wide = nearest.astype(np.float64)
    infinite = np.isinf(value)
    if mode in ("rz", "rm"):
        wrong = wide > value
        down = np.where(wrong & ~infinite, np.nextafter(nearest, np.float32(-np.inf)), nearest)
        if mode == "rm":
            return _signed_zero(down, value)
    if mode in ("rz", "rp"):
        wrong = wide < value
        up = np.where(wrong & ~infinite, np.nextafter(nearest, np.float32(np.inf)), nearest)
        if mode == "rp":
            return _signed_zero(up, value)
    return _signed_zero(np.where(value > 0, down, up), value)


def _signed_zero(result: Array, value: Array) -> Array:
    """A result that became zero keeps the sign of the exact one."""
    return np.where(result == 0, np.copysign(np.float32(0), value).astype(np.float32), result)


def f32_to_odd(value: Array) -> Array:
    """f64 -> f32 rounded to odd, from which 16-bit formats can be rounded."""
    cut = to_f32(value, "rz")
    bits = cut.view(np.uint32)
    inexact = (cut.astype(np.float64) != value) & np.isfinite(value)
    return np.where(inexact, bits | np.uint32(1), bits).view(np.float32)


def to_bf16(value: Array, mode: str = "rn") -> Array:
    """f32 (or f64) -> bf16 bits as uint16; NaN becomes 0x7FFF."""
    single = value if value.dtype == np.float32 else f32_to_odd(value)
    bits = np.ascontiguousarray(single).view(np.uint32)
    upper, last = bits >> np.uint32(16), (bits >> np.uint32(16)) & np.uint32(1)
    if mode == "rn":
        upper = (bits + (np.uint32(0x7FFF) + last)) >> np.uint32(16)
    elif mode == "rna":
        upper = (bits + np.uint32(0x8000)) >> np.uint32(16)
    elif mode in ("rm", "rp"):
        away = ((bits >> np.uint32(31)) == 1) == (mode == "rm")
        lost = (bits & np.uint32(0xFFFF)) != 0
        upper = np.where(away & lost & np.isfinite(single), upper + np.uint32(1), upper)
    return np.where(np.isnan(single), np.uint16(0x7FFF), upper.astype(np.uint16))


def from_bf16(bits: Array) -> Array:
    """bf16 bits -> f32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_f16(value: Array, mode: str = "rn") -> Array:
    """f32 or f64 -> f16 bits as uint16; NaN becomes 0x7FFF."""
    half = value.astype(np.float16)
    if mode != "rn":
        wide, exact = half.astype(np.float64), value.astype(np.float64)
        down = np.where((wide > exact) & np.isfinite(exact), np.nextafter(half, np.float16(-np.inf)), half)
        up = np.where((wide < exact) & np.isfinite(exact), np.nextafter(half, np.float16(np.inf)), half)
        half = {"rm": down, "rp": up, "rz": np.where(exact > 0, down, up)}[mode]
    return np.where(np.isnan(half), np.uint16(0x7FFF), half.view(np.uint16))


def to_tf32(value: Array, mode: str = "rna") -> Array:
    """f32 -> tf32 in f32's bits: 10 mantissa bits are kept."""
    bits = value.view(np.uint32)
    add = np.uint32(0x1000) if mode == "rna" else np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    if mode == "rz":
        add = np.uint32(0)
    rounded = np.where(np.isfinite(value), bits + add, bits) & np.uint32(0xFFFFE000)
    return np.where(np.isnan(value), np.uint32(0x7FFFFFFF), rounded)
