"""Exact numbers for oracles of arithmetic: bits of a format -> an integer times a power of two, and once rounded, back.

Python's integers carry everything; nothing here rounds but `encode`, and that once.
"""

from __future__ import annotations

import math
from functools import lru_cache

Value = tuple[int, int, int] | None  # (sign, m, e): (-1)^sign m 2^e; INF for m; None for a NaN
INF = -1
NAN = -1  # as a result's bits: any NaN, or the canonical one where the format has it
FORMATS = {"f16": (5, 10), "bf16": (8, 7), "f32": (8, 23), "f64": (11, 52), "tf32": (8, 10)}  # exponent, mantissa
CANONICAL = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF}


@lru_cache(maxsize=1 << 16)
def decode(kind: str, bits: int) -> Value:
    exponent, mantissa = FORMATS[kind]
    sign, field, m = bits >> exponent + mantissa & 1, bits >> mantissa & (1 << exponent) - 1, bits & (1 << mantissa) - 1
    least = 2 - (1 << exponent - 1) - mantissa
    if field == (1 << exponent) - 1:
        return None if m else (sign, INF, 0)
    return (sign, m, least) if field == 0 else (sign, m | 1 << mantissa, least + field - 1)


def encode(kind: str, value: Value, mode: str = "rn", ftz: bool = False, sat: bool = False, relu: bool = False) -> int:
    """Round once. NAN for a NaN."""
    if value is None:
        return 0 if sat else NAN
    sign, m, e = value
    if sat or relu:
        if sign or m == 0:
            return 0
        if sat and (m == INF or m.bit_length() + e > 0):
            sign, m, e = 0, 1, 0
    exponent, mantissa = FORMATS[kind]
    top, infinity = sign << exponent + mantissa, ((1 << exponent) - 1) << mantissa
    if m <= 0:
        return top | (infinity if m == INF else 0)
    least = 2 - (1 << exponent - 1) - mantissa
    unit = max(m.bit_length() + e - 1 - mantissa, least)
    digits, rest, half = _cut(m, unit - e)
    up = {
        "rn": rest > half or (rest == half and digits & 1),
        "rna": rest >= half,
        "rz": False,
        "rm": sign,
        "rp": not sign,
    }
    digits += bool(rest and up[mode])
    if digits >> mantissa + 1:
        digits, unit = digits >> 1, unit + 1
    field = unit - least + (digits >> mantissa)
    if field >= (1 << exponent) - 1:
        away = {"rn": True, "rna": True, "rz": False, "rm": sign, "rp": not sign}[mode]
        return top | (infinity if away else infinity - 1)
    if field == 0:
        return top if ftz else top | digits
    return top | field << mantissa | digits & (1 << mantissa) - 1


def _cut(m: int, shift: int) -> tuple[int, int, int]:
    """m / 2^shift: (whole, rest, what half a unit is)."""
    if shift <= 0:
        return m << -shift, 0, 1
    return m >> shift, m & (1 << shift) - 1, 1 << shift - 1


def add(x: Value, y: Value, mode: str = "rn") -> Value:
    if x is None or y is None:
        return None
    if INF in (x[1], y[1]):
        return None if x[1] == y[1] and x[0] != y[0] else x if x[1] == INF else y
    e = min(x[2], y[2])
    total = ((-1) ** x[0] * x[1] << x[2] - e) + ((-1) ** y[0] * y[1] << y[2] - e)
    if total == 0:
        return (x[0] if x[0] == y[0] else int(mode == "rm"), 0, 0)
    return (int(total < 0), abs(total), e)


def mul(x: Value, y: Value) -> Value:
    if x is None or y is None:
        return None
    sign = x[0] ^ y[0]
    if INF in (x[1], y[1]):
        return None if 0 in (x[1], y[1]) else (sign, INF, 0)
    return (sign, x[1] * y[1], x[2] + y[2])


def div(x: Value, y: Value) -> Value:
    if x is None or y is None or (x[1], y[1]) in ((0, 0), (INF, INF)):
        return None
    sign = x[0] ^ y[0]
    if x[1] == INF or y[1] == 0:
        return (sign, INF, 0)
    if x[1] == 0 or y[1] == INF:
        return (sign, 0, 0)
    shift = max(0, 130 + y[1].bit_length() - x[1].bit_length())
    quotient, rest = divmod(x[1] << shift, y[1])
    return (sign, quotient << 1 | bool(rest), x[2] - y[2] - shift - 1)


def sqrt(x: Value) -> Value:
    if x is None or (x[0] and x[1] != 0):
        return None
    if x[1] <= 0:
        return x
    shift = 260 - x[1].bit_length() & ~1 | x[2] & 1
    root = math.isqrt(x[1] << shift)
    return (0, root << 1 | (root * root != x[1] << shift), (x[2] - shift) // 2 - 1)


def negated(x: Value) -> Value:
    return None if x is None else (1 - x[0], x[1], x[2])


def order(x: Value, y: Value) -> int | None:
    """-1, 0 or 1; None where one is a NaN."""
    if x is None or y is None:
        return None
    if x[1] == y[1] == INF:
        return y[0] - x[0]
    if INF in (x[1], y[1]):
        return (1 if x[1] == INF else -1) * (-1) ** (x if x[1] == INF else y)[0]
    total = add(x, negated(y))
    assert total is not None
    return 0 if total[1] == 0 else -1 if total[0] else 1


def whole(x: Value, mode: str) -> Value:
    """Rounded to an integer, in the manual's rni, rzi, rmi and rpi; the sign of a zero stays."""
    if x is None or x[1] == INF:
        return x
    digits, rest, half = _cut(x[1], -x[2])
    up = {"rni": rest > half or (rest == half and digits & 1), "rzi": False, "rmi": x[0], "rpi": not x[0]}[mode]
    return (x[0], digits + bool(rest and up), 0)


def signed(x: int, bits: int) -> int:
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> bits - 1 else x


def flushed(kind: str, bits: int, ftz: bool) -> Value:
    """An operand, subnormals as zeros where .ftz says so."""
    exponent, mantissa = FORMATS[kind]
    if ftz and bits >> mantissa & (1 << exponent) - 1 == 0:
        bits &= 1 << exponent + mantissa
    return decode(kind, bits)
