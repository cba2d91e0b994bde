"""What PTX's scalar float instructions and conversions give, from the PTX ISA manual; see scalar_forms.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from exact_numbers import (
    CANONICAL,
    FORMATS,
    INF,
    NAN,
    Value,
    add,
    decode,
    div,
    encode,
    flushed,
    mul,
    negated,
    order,
    signed,
    sqrt,
    whole,
)  # fmt: skip
from scalar_forms import FORMS, Form, by_element, integer, maker, packed, plain


def modifiers(names: tuple[str, ...]) -> tuple[str, bool, bool, bool]:
    mode = next((n for n in names if n in ("rn", "rz", "rm", "rp")), "rn")
    return mode, "ftz" in names, "sat" in names, "relu" in names


def rounded(names: tuple[str, ...], count: int, compute: Callable[..., Value], near: int = 0) -> Form:
    """An instruction whose result is `compute` of its operands, in the mode asked for, rounded once."""
    kind, (mode, ftz, sat, relu) = names[-1], modifiers(names)
    element, _ = packed(kind)

    def of(*bits: int) -> int:
        return encode(element, compute(*(flushed(element, b, ftz) for b in bits), mode), mode, ftz, sat, relu)

    return plain(names, (kind,) * count, kind, by_element(kind, of), near)


def either(row: str, count: int, compute: Callable[..., Value]) -> None:
    def make(names: tuple[str, ...]) -> Form | None:
        if packed(names[-1])[0] not in FORMATS:
            return integer(names)
        return rounded(names, count, compute)

    FORMS[row] = make


either("add", 2, lambda x, y, mode: add(x, y, mode))
either("sub", 2, lambda x, y, mode: add(x, negated(y), mode))
either("mul", 2, lambda x, y, mode: mul(x, y))


@maker("fma", "mad")
def _fma(names: tuple[str, ...]) -> Form | None:
    return rounded(names, 3, lambda x, y, z, mode: add(mul(x, y), z, mode))


@maker("div")
def _div(names: tuple[str, ...]) -> Form | None:
    if names[-1] not in FORMATS:
        return integer(names)
    loose = {"approx", "full"} & set(names)
    exact = rounded(names, 2, lambda x, y, mode: div(x, y), 2 if loose else 0)
    if not loose:
        return exact

    def inside(a: int, b: int) -> int | None:  # the manual bounds the error for divisors from 2^-126 to 2^126
        size = b & 0x7FFFFFFF
        result = exact.of(a, b)
        open_ended = not 0x00800000 <= size <= 0x7E800000 or result is None or result & 0x7F800000 in (0, 0x7F800000)
        return None if open_ended else result

    return Form(exact.text, exact.kinds, exact.result, inside, 2)


@maker("min", "max")
def _extreme(names: tuple[str, ...]) -> Form | None:
    kind = names[-1]
    element, _ = packed(kind)
    if element not in FORMATS:
        return integer(names)
    ftz, nan, sign, size = ("ftz" in names, "NaN" in names, "xorsign" in names, "abs" in names)
    largest, top = names[0] == "max", 1 << sum(FORMATS[element])

    def of(a: int, b: int) -> int:
        flip = (a ^ b) & top if sign else 0
        a, b = (a & ~top, b & ~top) if size else (a, b)
        x, y = flushed(element, a, ftz), flushed(element, b, ftz)
        if x is None or y is None:
            if nan or (x is None and y is None):
                return NAN
            return encode(element, y if x is None else x) | flip
        ordering = order(x, y) or (y[0] - x[0] if x[1] == 0 else 0)  # -0 is less than +0
        return encode(element, x if (ordering > 0) == largest else y) | flip

    return plain(names, (kind, kind), kind, by_element(kind, of))


@maker("abs", "neg")
def _sign(names: tuple[str, ...]) -> Form | None:
    kind = names[-1]
    element, _ = packed(kind)
    if element not in FORMATS:
        return integer(names)
    top, ftz = 1 << sum(FORMATS[element]), "ftz" in names

    def of(a: int) -> int:
        x = flushed(element, a, ftz)
        if x is None:
            return NAN
        bits = encode(element, x)
        return bits & ~top if names[0] == "abs" else bits ^ top

    def loose(a: int) -> int | None:  # what a NaN becomes is left open
        parts = (a & 0xFFFF, a >> 16) if kind.endswith("x2") else (a,)
        return None if any(decode(element, p) is None for p in parts) else by_element(kind, of)(a)

    return plain(names, (kind,), kind, loose)


@maker("copysign")
def _copysign(names: tuple[str, ...]) -> Form:
    top = 1 << int(names[-1][1:]) - 1
    return plain(names, (names[-1],) * 2, f"b{names[-1][1:]}", lambda a, b: a & top | b & ~top)


@maker("testp")
def _testp(names: tuple[str, ...]) -> Form:
    kind = names[-1]
    exponent, mantissa = FORMATS[kind]

    def of(a: int) -> int:
        field, m, full = a >> mantissa & (1 << exponent) - 1, a & (1 << mantissa) - 1, (1 << exponent) - 1
        return int({
            "finite": field < full, "infinite": field == full and m == 0, "number": field < full or m == 0,
            "notanumber": field == full and m != 0, "normal": 0 < field < full, "subnormal": field == 0 and m != 0,
        }[names[1]])  # fmt: skip

    return plain(names, (kind,), "pred", of)


# --------------------------------------------------------------------------- functions
def _safe(function: Callable[[float], float]) -> Callable[[float], float]:
    def compute(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return compute


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "ex2": lambda x: 2.0**x,
    "lg2": lambda x: -math.inf if x == 0 else math.log2(x),
    "sin": math.sin, "cos": math.cos, "tanh": math.tanh,
}  # fmt: skip


@maker("sqrt", "rcp", "rsqrt")
def _root(names: tuple[str, ...]) -> Form:
    one = (0, 1, 0)
    compute: dict[str, Callable[[Value], Value]] = {
        "sqrt": sqrt,
        "rcp": lambda x: div(one, x),
        "rsqrt": lambda x: div(one, x if x is not None and x[1] == 0 else sqrt(x)),
    }
    return rounded(names, 1, lambda x, mode: compute[names[0]](x), int("approx" in names))


@maker("ex2", "lg2", "sin", "cos", "tanh")
def _function(names: tuple[str, ...]) -> Form:
    """By the C library's functions of 53 bits, of which a format keeps 24 at most: within one unit."""
    kind, ftz = names[-1], "ftz" in names
    element, _ = packed(kind)
    compute = _safe(FUNCTIONS[names[0]])

    def of(a: int) -> int | None:
        x = flushed(element, a, ftz)
        if x is None:
            return NAN
        sign, m, e = x
        number = math.copysign(math.inf if m == INF else math.ldexp(m, e), -1 if sign else 1)
        result = compute(number)
        if math.isnan(result):
            return NAN
        m, e = math.frexp(abs(result)) if math.isfinite(result) else (0.0, 0)
        exact = (int(math.copysign(1, result) < 0), INF if math.isinf(result) else int(m * 2**53), e - 53)
        return encode(element, exact, "rn", ftz)

    return plain(names, (kind,), kind, by_element(kind, of), 1)


# --------------------------------------------------------------------------- conversions
def _loses(to: str, of: str) -> bool:
    return any(t < f for t, f in zip(FORMATS[to], FORMATS[of], strict=True))


def _to_integer(to: str, of: str, mode: str, ftz: bool) -> Callable[[int], int]:
    width, low = int(to[1:]), 0
    high = (1 << width) - 1
    if to[0] == "s":
        low, high = -(1 << width - 1), (1 << width - 1) - 1

    def convert(a: int) -> int:
        x = flushed(of, a, ftz)
        if x is None:
            return (low or 1 << width - 1) if of == "f64" or width == 64 else 0
        if x[1] == INF:
            return low if x[0] else high
        value = whole(x, mode)
        assert value is not None
        return max(low, min(high, (-1) ** value[0] * value[1]))

    return convert


def _between_integers(to: str, of: str, sat: bool) -> Callable[[int], int] | None:
    """None where the target holds every value of the source, and .sat is not allowed."""
    wide, narrow = int(of[1:]), int(to[1:])
    ends = {"s": lambda w: (-(1 << w - 1), (1 << w - 1) - 1), "u": lambda w: (0, (1 << w) - 1)}
    (low, high), (least, most) = ends[to[0]](narrow), ends[of[0]](wide)
    if sat and low <= least and high >= most:
        return None

    def convert(a: int) -> int:
        value = signed(a, wide) if of[0] == "s" else a & (1 << wide) - 1
        value = max(low, min(high, value)) if sat else value
        return signed(value, narrow) if to[0] == "s" else value & (1 << narrow) - 1

    return convert


@maker("cvt")
def _cvt(names: tuple[str, ...]) -> list[Form]:
    """With registers as wide as the types, and with wider ones: a result is extended to its register."""
    to, of = names[-2:]
    if {to, of} & set(EIGHT_BITS):
        return [_from_eight(names) if of in EIGHT_BITS else _to_eight(names)]
    if to.endswith("x2"):
        return [_cvt_pair(names)]
    mode = next((n for n in names if n in ("rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi")), "")
    ftz, sat, relu = (n in names for n in ("ftz", "sat", "relu"))
    if to == "tf32":
        return [plain(names, ("f32",), "b32", lambda a: _tf32(a, mode))]
    if ftz and "f32" not in (to, of):
        return []
    integral = mode.endswith("i")
    if to not in FORMATS:
        convert = _to_integer(to, of, mode, ftz) if of in FORMATS else _between_integers(to, of, sat)
        return [] if convert is None else _in_registers(names, of, to, convert)
    if of not in FORMATS:
        read: Callable[[int], int] = (
            (lambda a: signed(a, int(of[1:]))) if of[0] == "s" else (lambda a: a & (1 << int(of[1:])) - 1)
        )
        return _in_registers(names, of, to, lambda a: encode(to, (int(read(a) < 0), abs(read(a)), 0), mode, ftz))
    if (integral and to != of) or (not integral and bool(mode) != _loses(to, of)):
        return []
    if (sat and "bf16" in (to, of)) or (relu and (of != "f32" or to not in ("f16", "bf16"))):
        return []

    def convert_float(a: int) -> int | None:
        x = flushed(of, a, ftz and of == "f32")
        if x is None and not sat and to == of:
            return NAN
        return encode(
            to, whole(x, mode) if integral else x, "rn" if integral else mode or "rn", ftz and to == "f32", sat, relu
        )

    return [plain(names, (of,), to, convert_float)]


def _in_registers(names: tuple[str, ...], of: str, to: str, convert: Callable[[int], int]) -> list[Form]:
    """With every register that may hold the source and the result."""
    forms = []
    sources = [of] if of in FORMATS else [f"b{w}" for w in (16, 32, 64) if w >= int(of[1:])]
    exact = "bf16" in names  # which asks for registers as wide as its types
    for source in sources[:1] if exact else sources:
        for width in (max(16, int(to.lstrip("ubfs"))),) if exact else (16, 32, 64):
            if to in FORMATS and width != int(to.lstrip("bf")) or to not in FORMATS and width < int(to[1:]):
                continue
            forms.append(plain(names, (source,), to if to in FORMATS else f"b{width}", convert))
    return forms


def _tf32(a: int, mode: str) -> int | None:
    x = decode("f32", a)
    return None if x is None else encode("tf32", x, mode) << 13


EIGHT_BITS = {"e4m3x2": (3, -6, 0x7E), "e5m2x2": (2, -14, 0x7B)}  # mantissa, exponent of the least normal, largest


def _eight(kind: str, code: int) -> Fraction:
    """A finite code without a sign."""
    mantissa, least, _ = EIGHT_BITS[kind]
    field, digits = code >> mantissa, code & (1 << mantissa) - 1
    unit = Fraction(2) ** (max(field, 1) - 1 + least - mantissa)
    return unit * (digits + (1 << mantissa if field else 0))


def _to_eight(names: tuple[str, ...]) -> Form:
    """The nearest of all codes, of two the even one."""
    to, of, relu = names[-2], names[-1], "relu" in names
    codes = [(_eight(to, code), code) for code in range(EIGHT_BITS[to][2] + 1)]

    def one(bits: int) -> int:
        x = decode("f32" if of == "f32" else "f16", bits)
        if x is None:
            return 0x7F
        if relu and x[0]:
            return 0
        size = codes[-1][0] if x[1] == INF else min(codes[-1][0], x[1] * Fraction(2) ** x[2])
        return x[0] << 7 | min(codes, key=lambda c: (abs(c[0] - size), c[1] & 1))[1]

    if of == "f32":
        return plain(names, ("f32", "f32"), "b16", lambda a, b: one(b) | one(a) << 8)
    return plain(names, ("f16x2",), "b16", lambda a: one(a & 0xFFFF) | one(a >> 16) << 8)


def _from_eight(names: tuple[str, ...]) -> Form:
    of, relu = names[-1], "relu" in names

    def one(code: int) -> int:
        size, sign = code & 0x7F, code >> 7
        if size > EIGHT_BITS[of][2]:
            infinite = of == "e5m2x2" and size == 0x7C
            return (0 if sign and relu else sign << 15 | 0x7C00) if infinite else 0x7FFF
        value = _eight(of, size)
        return 0 if sign and relu else encode("f16", (sign, value.numerator, 1 - value.denominator.bit_length()))

    return plain(names, ("b16",), "b32", lambda a: one(a & 0xFF) | one(a >> 8) << 16)


def _cvt_pair(names: tuple[str, ...]) -> Form:
    element, (mode, _, _, relu) = names[-2][:-2], modifiers(names)

    def of(a: int, b: int) -> int:
        parts = [encode(element, decode("f32", x), mode, relu=relu) for x in (b, a)]
        return sum((CANONICAL[element] if p == NAN else p) << 16 * i for i, p in enumerate(parts))

    return plain(names, ("f32", "f32"), "b32", of)
