"""Each opcode against what the PTX manual says, in hand-written PTX."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np
import pytest

import core.sim
from core.sim import PtxError, Simulator
from core.testing.ptx import HEAD, f32, lanes

rng = np.random.default_rng(7)
U = rng.integers(0, 2**32, 64, dtype=np.uint32)
V = rng.integers(0, 2**32, 64, dtype=np.uint32)
W = rng.integers(0, 2**32, 64, dtype=np.uint32)
U[:6] = [0, 1, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 5]
V[:6] = [0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 31, 0]


def signed(x: int, bits: int = 32) -> int:
    return x - (1 << bits) if x >> (bits - 1) else x


def c_div(a: int, b: int) -> int:
    return int(Fraction(abs(a), abs(b))) * (1 if (a < 0) == (b < 0) else -1)


# body -> Python on unsigned 32-bit integers
INTEGER = {
    "add.s32 %d, %a, %b;": lambda a, b, c: a + b,
    "sub.s32 %d, %a, %b;": lambda a, b, c: a - b,
    "mul.lo.s32 %d, %a, %b;": lambda a, b, c: a * b,
    "mul.hi.u32 %d, %a, %b;": lambda a, b, c: a * b >> 32,
    "mul.hi.s32 %d, %a, %b;": lambda a, b, c: signed(a) * signed(b) >> 32,
    "mad.lo.s32 %d, %a, %b, %c;": lambda a, b, c: a * b + c,
    "mad.hi.u32 %d, %a, %b, %c;": lambda a, b, c: (a * b >> 32) + c,
    "div.u32 %d, %a, %b;": lambda a, b, c: a // b if b else 0xFFFFFFFF,
    "rem.u32 %d, %a, %b;": lambda a, b, c: a % b if b else a,
    "div.s32 %d, %a, %b;": lambda a, b, c: c_div(signed(a), signed(b)) if b else -1,
    "rem.s32 %d, %a, %b;": lambda a, b, c: signed(a) - c_div(signed(a), signed(b)) * signed(b) if b else a,
    "min.u32 %d, %a, %b;": lambda a, b, c: min(a, b),
    "max.s32 %d, %a, %b;": lambda a, b, c: max(signed(a), signed(b)),
    "abs.s32 %d, %a;": lambda a, b, c: abs(signed(a)),
    "neg.s32 %d, %a;": lambda a, b, c: -a,
    "sad.u32 %d, %a, %b, %c;": lambda a, b, c: c + abs(a - b),
    "and.b32 %d, %a, %b;": lambda a, b, c: a & b,
    "or.b32 %d, %a, %b;": lambda a, b, c: a | b,
    "xor.b32 %d, %a, %b;": lambda a, b, c: a ^ b,
    "not.b32 %d, %a;": lambda a, b, c: ~a,
    "cnot.b32 %d, %a;": lambda a, b, c: int(a == 0),
    "popc.b32 %d, %a;": lambda a, b, c: a.bit_count(),
    "clz.b32 %d, %a;": lambda a, b, c: 32 - a.bit_length(),
    "brev.b32 %d, %a;": lambda a, b, c: int(f"{a:032b}"[::-1], 2),
    "bfind.u32 %d, %a;": lambda a, b, c: a.bit_length() - 1,
    "bfind.s32 %d, %a;": lambda a, b, c: (~signed(a) if signed(a) < 0 else a).bit_length() - 1,
    "shl.b32 %d, %a, %b;": lambda a, b, c: a << min(b, 32),
    "shr.u32 %d, %a, %b;": lambda a, b, c: a >> min(b, 32),
    "shr.s32 %d, %a, %b;": lambda a, b, c: signed(a) >> min(b, 31),
    "shl.b32 %d, %a, 7;": lambda a, b, c: a << 7,
    "shr.s32 %d, %a, 40;": lambda a, b, c: signed(a) >> 31,
    "shf.l.wrap.b32 %d, %a, %b, %c;": lambda a, b, c: ((b << 32 | a) << (c & 31)) >> 32,
    "shf.r.wrap.b32 %d, %a, %b, %c;": lambda a, b, c: (b << 32 | a) >> (c & 31),
    "shf.l.clamp.b32 %d, %a, %b, %c;": lambda a, b, c: ((b << 32 | a) << min(c, 32)) >> 32,
    "shf.r.clamp.b32 %d, %a, %b, %c;": lambda a, b, c: (b << 32 | a) >> min(c, 32),
    "lop3.b32 %d, %a, %b, %c, 0x96;": lambda a, b, c: a ^ b ^ c,
    "lop3.b32 %d, %a, %b, %c, 0xe8;": lambda a, b, c: a & b | a & c | b & c,
    "lop3.b32 %d, %a, %b, %c, 0xca;": lambda a, b, c: a & b | ~a & c,
    "bfe.u32 %d, %a, 5, 9;": lambda a, b, c: a >> 5 & 511,
    "bfe.s32 %d, %a, 5, 9;": lambda a, b, c: signed(a >> 5 & 511, 9),
    "bfe.s32 %d, %a, 28, 9;": lambda a, b, c: signed(a) >> 28,
    "bfe.u32 %d, %a, 0, 32;": lambda a, b, c: a,
    "bfi.b32 %d, %a, %b, 8, 12;": lambda a, b, c: b & ~(0xFFF << 8) | (a & 0xFFF) << 8,
    "selp.b32 %d, %a, %b, 1;": lambda a, b, c: a,
    "mul24.lo.u32 %d, %a, %b;": lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "mul.wide.u16 %d, %h0, %h1;": lambda a, b, c: (a & 0xFFFF) * (b >> 16),
    "setp.lt.s32 %q0, %a, %b; selp.b32 %d, %c, 9, %q0;": lambda a, b, c: c if signed(a) < signed(b) else 9,
    "setp.hi.u32 %q0, %a, %b; selp.b32 %d, %c, 9, %q0;": lambda a, b, c: c if a > b else 9,
    "set.ge.u32.u32 %d, %a, %b;": lambda a, b, c: 0xFFFFFFFF if a >= b else 0,
    "slct.b32.s32 %d, %a, %b, %c;": lambda a, b, c: a if signed(c) >= 0 else b,
    "add.cc.u32 %r0, %a, %b; addc.u32 %d, %c, 0;": lambda a, b, c: c + (a + b >> 32),
    "sub.cc.u32 %r0, %a, %b; subc.u32 %d, %c, 0;": lambda a, b, c: c - (a < b),
    "mov.b32 {%h2, %h3}, %a; mov.b32 %d, {%h3, %h2};": lambda a, b, c: a << 16 | a >> 16,
    "cvt.u32.u8 %d, %a;": lambda a, b, c: a & 255,
    "cvt.s32.s8 %d, %a;": lambda a, b, c: signed(a & 255, 8),
    "cvt.sat.s8.s32 %h2, %a; cvt.s32.s16 %d, %h2;": lambda a, b, c: max(-128, min(127, signed(a))),
    "cvt.sat.u8.s32 %h2, %a; cvt.u32.u16 %d, %h2;": lambda a, b, c: max(0, min(255, signed(a))),
    "prmt.b32 %d, %a, %b, 0x6521;": lambda a, b, c: sum(
        ((b << 32 | a) >> 8 * n & 255) << 8 * i for i, n in enumerate((1, 2, 5, 6))
    ),
    "prmt.b32 %d, %a, %b, 0xBA98;": lambda a, b, c: sum((255 if a >> 8 * n & 128 else 0) << 8 * n for n in range(4)),
    "dp4a.u32.u32 %d, %a, %b, %c;": lambda a, b, c: c + sum((a >> 8 * i & 255) * (b >> 8 * i & 255) for i in range(4)),
}


@pytest.mark.parametrize("body", INTEGER)
def test_integer_opcodes(body):
    head = "cvt.u16.u32 %h0, %a; shr.u32 %r0, %b, 16; cvt.u16.u32 %h1, %r0;\n" if "%h1" in body else ""
    by_small = "shl.b32" in body or "shr." in body
    b = np.where(np.arange(64) % 4 == 0, V, V % 40).astype(np.uint32) if by_small else V
    c = W % 40 if body.startswith("shf") else W
    got = lanes(head + body, U, b, c)
    wanted = [INTEGER[body](int(x), int(y), int(z)) & 0xFFFFFFFF for x, y, z in zip(U, b, c, strict=True)]
    assert got.tolist() == wanted


WIDE = {
    "mul.wide.s32 %d, %r0, %r1;": lambda a, b: signed(a & 0xFFFFFFFF) * signed(b & 0xFFFFFFFF),
    "mul.hi.u64 %d, %a, %b;": lambda a, b: a * b >> 64,
    "mul.hi.s64 %d, %a, %b;": lambda a, b: signed(a, 64) * signed(b, 64) >> 64,
    "mul.lo.s64 %d, %a, %b;": lambda a, b: a * b,
    "mad.wide.u32 %d, %r0, %r1, %b;": lambda a, b: (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF) + b,
    "div.u64 %d, %a, %b;": lambda a, b: a // b,
    "rem.s64 %d, %a, %b;": lambda a, b: signed(a, 64) - c_div(signed(a, 64), signed(b, 64)) * signed(b, 64),
    "bfi.b64 %d, %a, %b, 32, 32;": lambda a, b: b & 0xFFFFFFFF | (a & 0xFFFFFFFF) << 32,
    "shr.s64 %d, %a, 70;": lambda a, b: signed(a, 64) >> 63,
    "cvt.s64.s32 %d, %r0;": lambda a, b: signed(a & 0xFFFFFFFF),
    "cvt.u64.u32 %d, %r0;": lambda a, b: a & 0xFFFFFFFF,
    "mov.b64 %d, {%r1, %r0};": lambda a, b: b & 0xFFFFFFFF | (a & 0xFFFFFFFF) << 32,
}


@pytest.mark.parametrize("body", WIDE)
def test_64_bit_opcodes(body):
    a, b = rng.integers(0, 2**64, (2, 64), dtype=np.uint64)
    got = lanes("cvt.u32.u64 %r0, %a; cvt.u32.u64 %r1, %b;\n" + body, a, b, out=np.uint64)
    assert got.tolist() == [WIDE[body](int(x), int(y)) & (2**64 - 1) for x, y in zip(a, b, strict=True)]


# --------------------------------------------------------------------------- floats
SPECIAL = f32(
    0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3.4e38, 1.17549435e-38, 0.1, 16777217.0, 0.5
)
PAIRS = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1).astype(np.float32)
RANDOM = (rng.standard_normal((3, 400)) * 2.0 ** rng.integers(-60, 60, (3, 400))).astype(np.float32)
A = np.concatenate([PAIRS[0], RANDOM[0]])
B = np.concatenate([PAIRS[1], RANDOM[1]])
C = np.concatenate([PAIRS[1][::-1], RANDOM[2]])


def round_f32(exact: Fraction, mode: str) -> float:
    """Fraction -> f32 in a rounding mode, by definition."""
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = max(math.floor(math.log2(float(size))) if float(size) > 0 else -150, -126)
    while Fraction(2) ** (exponent + 1) <= size:
        exponent += 1
    while exponent > -126 and Fraction(2) ** exponent > size:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 23)
    steps = size / unit
    low = steps.numerator // steps.denominator
    rest = steps - low
    up = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1),
        "rz": False,
        "rm": exact < 0 and rest > 0,
        "rp": exact > 0 and rest > 0,
    }[mode]
    value = (low + up) * unit
    limit = Fraction(float(np.finfo(np.float32).max))
    if value > limit:
        toward = mode == "rz" or (mode == "rm" and exact > 0) or (mode == "rp" and exact < 0)
        return math.copysign(float(limit) if toward else math.inf, exact)
    return math.copysign(float(value), exact)


def same(got, wanted):
    """Equal bits, where every NaN is the canonical one; the sign of a zero from an exact cancellation is not asked."""
    for g, w in zip(got.tolist(), wanted, strict=True):
        assert (math.isnan(g) and math.isnan(w)) or g == w, (g, w)


EXACT = {
    "add": (2, lambda a, b, c: a + b),
    "sub": (2, lambda a, b, c: a - b),
    "mul": (2, lambda a, b, c: a * b),
    "div": (2, lambda a, b, c: a / b),
    "fma": (3, lambda a, b, c: a * b + c),
    "sqrt": (1, None),
}


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("name", EXACT)
def test_every_rounding_mode_is_exact(name, mode):
    count, exact = EXACT[name]
    operands = ", ".join("%" + n for n in "abc"[:count])
    a, b, c = (np.where(np.isfinite(v), v, np.float32(1.5)) for v in (A, B, C))
    if name == "div":
        b = np.where(b == 0, np.float32(3), b)
    if name == "sqrt":
        a = np.abs(a)
    got = lanes(f"{name}.{mode}.f32 %d, {operands};", a, b, c, out=np.float32)
    for g, x, y, z in zip(got, a.tolist(), b.tolist(), c.tolist(), strict=True):
        if exact is None:
            # sqrt: the result is the right neighbour when its square brackets the argument
            assert_sqrt(Fraction(x), Fraction(float(g)), mode)
        else:
            assert float(g) == round_f32(exact(Fraction(x), Fraction(y), Fraction(z)), mode), (x, y, z)


def assert_sqrt(x: Fraction, root: Fraction, mode: str) -> None:
    def step(v, way):
        return Fraction(float(np.nextafter(np.float32(float(v)), np.float32(way))))

    below, above = step(root, -np.inf), step(root, np.inf)
    if mode == "rn":
        assert ((below + root) / 2) ** 2 <= x <= ((root + above) / 2) ** 2 or x == 0
    elif mode == "rp":
        assert root**2 >= x and (below < 0 or below**2 < x or x == 0)
    else:
        assert root**2 <= x < above**2


def test_fma_rounds_once_where_rounding_twice_is_wrong():
    # a * b = 1 + 2^-23 + 2^-24 exactly half way; c breaks the tie below f64's last bit.
    a, b = f32(1 + 2**-12), f32(1 + 2**-12)
    c = f32(2.0**-24 - 2.0**-24 + 2**-80)
    exact = Fraction(float(a[0])) * Fraction(float(b[0])) + Fraction(float(c[0]))
    assert lanes("fma.rn.f32 %d, %a, %b, %c;", a, b, c, out=np.float32)[0] == round_f32(exact, "rn")
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert twice[0] != round_f32(exact, "rn")


HALF, UNDER = 1 + 2**-12, 1 + 2**-23  # squares of the first end half way between two f32
FMA = {
    "zeros and halves": ([HALF, 0.0, -0.0, -HALF], [HALF, 5.0, 7.0, HALF], [2.0**-80, 0.0, 0.0, -(2.0**-80)]),
    "zeros and a subnormal": ([UNDER * 2.0**-75, 0.0], [2.0**-75 * (2 - UNDER), 3.0], [129 * 2.0**-149, 0.0]),
    "infinity and halves": ([1.0, HALF], [2.0, HALF], [np.inf, 2.0**-80]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FMA)
def test_several_fma_together_round_as_one_among(kind: str):
    a, b, c = (np.array(values, np.float32) for values in FMA[kind])
    body = "fma.rn.f32 %d, %a, %b, %c;\nfma.rn.f32 %e2, %b, %a, %c;\nxor.b32 %r1, %d, %e2;\nor.b32 %d, %d, %r1;"
    got = lanes(body, a, b, c, out=np.float32, declare=".reg .b32 %e2;")
    for x, y, z, told in zip(a, b, c, got, strict=True):
        product = Fraction(float(x)) * Fraction(float(y))
        assert told == (round_f32(product + Fraction(float(z)), "rn") if np.isfinite(z) else z)


def test_special_values_of_f32_arithmetic():
    with np.errstate(all="ignore"):
        for name, op in (("add", np.add), ("mul", np.multiply), ("div.rn", np.divide)):
            got = lanes(f"{name}.f32 %d, %a, %b;", A, B, out=np.float32)
            wanted = op(A, B)
            same(got, wanted.tolist())
            assert (got.view(np.uint32)[np.isnan(wanted)] == 0x7FFFFFFF).all()
            zero = wanted == 0
            assert (np.signbit(got) == np.signbit(wanted))[zero].all()


def test_ftz_flushes_operands_and_results():
    assert lanes("add.ftz.f32 %d, %a, %b;", f32(1e-40), f32(1.0), out=np.float32)[0] == 1.0
    got = lanes("mul.ftz.f32 %d, %a, %b;", f32(-1e-30), f32(1e-12), out=np.float32)
    assert got.view(np.uint32)[0] == 0x80000000


def test_sat_clamps_and_turns_nan_into_zero():
    got = lanes("add.sat.f32 %d, %a, 0f00000000;", f32(-1, 0.25, 7, np.nan), out=np.float32)
    assert got.tolist() == [0, 0.25, 1, 0]


def test_min_and_max_prefer_numbers_and_order_zeros():
    a, b = f32(np.nan, 1, 0.0, -0.0, np.nan), f32(2, np.nan, -0.0, 0.0, np.nan)
    low = lanes("min.f32 %d, %a, %b;", a, b, out=np.float32)
    high = lanes("max.f32 %d, %a, %b;", a, b, out=np.float32)
    assert low.view(np.uint32).tolist() == [0x40000000, 0x3F800000, 0x80000000, 0x80000000, 0x7FFFFFFF]
    assert high.view(np.uint32).tolist() == [0x40000000, 0x3F800000, 0, 0, 0x7FFFFFFF]
    strict = lanes("max.NaN.f32 %d, %a, %b;", a, b, out=np.float32)
    assert np.isnan(strict).tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("compare", "function"),
    [("eq", "=="), ("ne", "!="), ("lt", "<"), ("ltu", "<u"), ("gtu", ">u"), ("equ", "==u"), ("neu", "!=u"),
     ("nan", "nan"), ("num", "num")],
)  # fmt: skip
def test_float_comparisons_and_nan(compare, function):
    a, b = f32(1, 2, np.nan, 1), f32(1, 1, 1, 2)
    got = lanes(f"setp.{compare}.f32 %q0, %a, %b; selp.b32 %d, 1, 0, %q0;", a, b).tolist()
    table = {"==": [1, 0, 0, 0], "!=": [0, 1, 0, 1], "<": [0, 0, 0, 1], "<u": [0, 0, 1, 1], ">u": [0, 1, 1, 0]}
    table |= {"==u": [1, 0, 1, 0], "!=u": [0, 1, 1, 1], "nan": [0, 0, 1, 0], "num": [1, 1, 0, 1]}
    assert got == table[function]


def test_setp_combines_and_gives_both_results():
    got = lanes(
        "setp.ne.s32 %q2, %b, 0; setp.lt.and.s32 %q0|%q1, %a, 5, %q2; selp.b32 %r0, 1, 0, %q0; selp.b32 %r1, 2, 0, %q1;"
        "add.s32 %d, %r0, %r1;",
        np.array([1, 1, 9, 9], np.uint32),
        np.array([0, 1, 0, 1], np.uint32),
    )
    assert got.tolist() == [0, 1, 0, 2]


APPROX = {
    "rcp.approx.f32": lambda x: 1 / x, "rsqrt.approx.f32": lambda x: 1 / np.sqrt(x), "sqrt.approx.f32": np.sqrt,
    "ex2.approx.f32": np.exp2, "lg2.approx.f32": np.log2, "sin.approx.f32": np.sin, "cos.approx.f32": np.cos,
    "tanh.approx.f32": np.tanh, "rcp.rn.f32": lambda x: 1 / x, "sqrt.rn.f32": np.sqrt,
}  # fmt: skip


@pytest.mark.parametrize("name", APPROX)
def test_functions_are_the_exact_value_rounded(name):
    x = np.abs(rng.standard_normal(200).astype(np.float32)) * 3 + np.float32(0.01)
    got = lanes(f"{name} %d, %a;", x, out=np.float32)
    assert (got == APPROX[name](x.astype(np.float64)).astype(np.float32)).all()


def bits16(x, kind):
    return x.astype(np.float16).view(np.uint16) if kind == "f16" else (x.view(np.uint32) >> 16).astype(np.uint16)


def value16(bits, kind):
    return bits.view(np.float16).astype(np.float64) if kind == "f16" else (
        (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["add.rn", "sub.rn", "mul.rn", "fma.rn", "min", "max"])
def test_half_arithmetic_and_its_packed_form(kind, name):
    x, y, z = (bits16(rng.standard_normal(64).astype(np.float32), kind) for _ in range(3))
    a, b, c = (value16(v, kind) for v in (x, y, z))
    exact = {
        "add": a + b,
        "sub": a - b,
        "mul": a * b,
        "fma": a * b + c,
        "min": np.minimum(a, b),
        "max": np.maximum(a, b),
    }
    wanted = exact[name.split(".")[0]]
    operands = "%a, %b, %c" if name == "fma.rn" else "%a, %b"
    got = value16(lanes(f"{name}.{kind} %d, {operands};", x, y, z, out=np.uint16), kind)
    tolerance = 2.0**-11 if kind == "f16" else 2.0**-8
    assert (np.abs(got - wanted) <= tolerance * np.abs(wanted) + 1e-7).all()
    pairs = [np.ascontiguousarray(v).view(np.uint32) for v in (x, y, z)]
    packed = lanes(f"{name}.{kind}x2 %d, {operands};", *pairs, out=np.uint32).view(np.uint16)
    assert (value16(packed, kind) == got).all()


def test_packed_f32():
    a, b, c = (rng.standard_normal(32).astype(np.float32) for _ in range(3))
    wide = [v.view(np.uint64) for v in (a, b, c)]
    got = lanes("fma.rn.f32x2 %d, %a, %b, %c;", *wide, out=np.uint64).view(np.float32)
    one = lanes("fma.rn.f32 %d, %a, %b, %c;", a, b, c, out=np.float32)
    assert (got == one).all()


# --------------------------------------------------------------------------- conversions
def test_float_to_integer_rounds_and_clamps():
    x = f32(-1.5, -0.5, 0.5, 1.5, 2.5, 3e9, -3e9, np.nan, 5e9)
    wanted = {
        "rni.s32": [-2, 0, 0, 2, 2, 2**31 - 1, -(2**31), 0, 2**31 - 1],
        "rzi.s32": [-1, 0, 0, 1, 2, 2**31 - 1, -(2**31), 0, 2**31 - 1],
        "rmi.s32": [-2, -1, 0, 1, 2, 2**31 - 1, -(2**31), 0, 2**31 - 1],
        "rpi.s32": [-1, 0, 1, 2, 3, 2**31 - 1, -(2**31), 0, 2**31 - 1],
        "rzi.u32": [0, 0, 0, 1, 2, 3000000000, 0, 0, 2**32 - 1],
    }
    for form, values in wanted.items():
        out = np.uint32 if "u32" in form else np.int32
        assert lanes(f"cvt.{form}.f32 %d, %a;", x, out=out).tolist() == values, form


def test_integer_to_float_rounds_as_asked():
    x = np.array([16777217, 16777219, 0xFFFFFFFF, 3], np.uint32)
    for mode in ("rn", "rz", "rm", "rp"):
        got = lanes(f"cvt.{mode}.f32.u32 %d, %a;", x, out=np.float32)
        assert got.tolist() == [round_f32(Fraction(int(v)), mode) for v in x], mode
    wide = np.array([2**60 + 2**36 + 1, 2**53 + 1, 5], np.uint64)
    for mode in ("rn", "rz", "rm", "rp"):
        got = lanes(f"cvt.{mode}.f32.u64 %d, %a;", wide, out=np.float32)
        assert got.tolist() == [round_f32(Fraction(int(v)), mode) for v in wide], mode


def test_bf16_conversions_round_to_nearest_even():
    x = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7FC00001, 0x80000001], np.uint32)
    got = lanes("cvt.rn.bf16.f32 %d, %a;", x, out=np.uint16)
    assert got.tolist() == [0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7FFF, 0x8000]
    pair = lanes("cvt.rn.bf16x2.f32 %d, %a, %b;", f32(1), f32(2))
    assert pair[0] == 0x3F804000  # the first source is the upper half
    back = lanes("cvt.f32.bf16 %d, %a;", np.array([0x4049], np.uint16), out=np.float32)
    assert back[0] == struct.unpack("<f", struct.pack("<I", 0x40490000))[0]
    assert lanes("cvt.rz.bf16.f32 %d, %a;", x, out=np.uint16).tolist()[:4] == [0x3F80, 0x3F81, 0x3F80, 0x7F7F]


def test_other_float_conversions():
    x = np.array([1.1, 1e300, -1e-320, np.pi])
    with np.errstate(over="ignore"):
        assert (lanes("cvt.rn.f32.f64 %d, %a;", x, out=np.float32) == x.astype(np.float32)).all()
    assert (lanes("cvt.f64.f32 %d, %a;", f32(1.25, -3), out=np.float64) == [1.25, -3]).all()
    half = lanes("cvt.rn.f16.f32 %d, %a;", f32(1.0009766, 65520), out=np.uint16)
    assert half.tolist() == [0x3C01, 0x7C00]
    assert lanes("cvt.rni.f32.f32 %d, %a;", f32(2.5, -0.5, 3.7), out=np.float32).tolist() == [2, 0, 4]
    assert lanes("cvt.rna.tf32.f32 %d, %a;", f32(1.0 + 2**-11), out=np.float32)[0] == 1 + 2**-10


def test_double_arithmetic():
    a, b, c = rng.standard_normal((3, 64))
    assert (lanes("add.f64 %d, %a, %b;", a, b, out=np.float64) == a + b).all()
    got = lanes("fma.rn.f64 %d, %a, %b, %c;", a, b, c, out=np.float64)
    wanted = [
        float(Fraction(x) * Fraction(y) + Fraction(z))
        for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    assert got.tolist() == wanted


def test_neg_abs_copysign_testp():
    x = f32(-2, 0.0, np.inf)
    assert np.signbit(lanes("neg.f32 %d, %a;", x, out=np.float32)).tolist() == [False, True, True]
    assert lanes("abs.f32 %d, %a;", x, out=np.float32).tolist() == [2, 0, np.inf]
    assert lanes("copysign.f32 %d, %a, %b;", f32(-1), f32(3), out=np.float32)[0] == -3
    assert lanes("testp.infinite.f32 %q0, %a; selp.b32 %d, 1, 0, %q0;", x).tolist() == [0, 0, 1]


# --------------------------------------------------------------------------- warps
LANE = np.arange(32)


@pytest.mark.parametrize(
    ("mode", "b", "c", "source"),
    [
        ("bfly", 5, 0x1F, lambda i: i ^ 5),
        ("up", 3, 0, lambda i: i - 3 if i >= 3 else i),
        ("down", 4, 0x1F, lambda i: i + 4 if i + 4 < 32 else i),
        ("idx", 7, 0x1F, lambda i: 7),
        ("down", 1, 0x181F, lambda i: i + 1 if (i + 1) % 8 else i),  # segments of 8
        ("idx", 2, 0x181F, lambda i: i // 8 * 8 + 2),
    ],
)
def test_shuffles(mode, b, c, source):
    value = np.arange(100, 132, dtype=np.uint32)
    got = lanes(f"shfl.sync.{mode}.b32 %d|%q0, %a, {b}, {c}, -1;", value)
    assert got.tolist() == [100 + source(i) for i in range(32)]
    inside = lanes(f"shfl.sync.{mode}.b32 %r0|%q0, %a, {b}, {c}, -1; selp.b32 %d, 1, 0, %q0;", value)
    assert inside.tolist() == [int(source(i) != i or mode in ("bfly", "idx")) for i in range(32)]


def test_shuffle_with_a_source_of_each_lane():
    value, where = rng.integers(0, 99, 64, dtype=np.uint32), rng.integers(0, 32, 64, dtype=np.uint32)
    got = lanes("shfl.sync.idx.b32 %d, %a, %b, 31, -1;", value, where)
    assert got.tolist() == [value[i // 32 * 32 + where[i]] for i in range(64)]


def test_votes_and_ballots():
    value = (np.arange(64) % 3 == 0).astype(np.uint32)
    test = "setp.ne.u32 %q0, %a, 0;"
    words = [sum(int(value[w * 32 + i]) << i for i in range(32)) for w in (0, 1)]
    assert lanes(f"{test} vote.sync.ballot.b32 %d, %q0, -1;", value).tolist() == [words[i // 32] for i in range(64)]
    for mode, wanted in (("any", 1), ("all", 0), ("uni", 0)):
        got = lanes(f"{test} vote.sync.{mode}.pred %q1, %q0, -1; selp.b32 %d, 1, 0, %q1;", value)
        assert set(got.tolist()) == {wanted}


def test_votes_under_divergence_see_only_the_lanes_that_are_here():
    body = """
    setp.lt.u32 %q0, %a, 10;
    mov.u32 %d, 0;
    @!%q0 bra OTHER;
    activemask.b32 %d;
    bra JOIN;
    OTHER: vote.sync.ballot.b32 %d, 1, 0xfffffc00;
    JOIN:
    """
    got = lanes(body, LANE.astype(np.uint32))
    assert got.tolist() == [0x3FF] * 10 + [0xFFFFFC00] * 22


def test_match_redux_elect():
    value = np.array([i % 5 for i in range(32)], np.uint32)
    got = lanes("match.any.sync.b32 %d, %a, -1;", value)
    assert got.tolist() == [sum(1 << j for j in range(32) if j % 5 == i % 5) for i in range(32)]
    assert set(lanes("redux.sync.add.u32 %d, %a, -1;", value).tolist()) == {int(value.sum())}
    assert set(lanes("redux.sync.max.s32 %d, %a, -1;", value).tolist()) == {4}
    body = "setp.gt.u32 %q1, %a, 2; mov.u32 %d, 0; @%q1 elect.sync %r0|%q0, 0xfffffff8; @%q1 selp.b32 %d, 1, 0, %q0;"
    assert np.flatnonzero(lanes(body, LANE.astype(np.uint32))).tolist() == [3]


# --------------------------------------------------------------------------- control
def test_predication_touches_only_its_lanes():
    got = lanes(
        "setp.gt.u32 %q0, %a, 4; mov.u32 %d, 7; @%q0 mov.u32 %d, 9; @!%q0 add.u32 %d, %d, 1;", LANE.astype(np.uint32)
    )
    assert got.tolist() == [8 if i <= 4 else 9 for i in range(32)]


def test_nested_divergence_and_loops_of_different_length():
    body = """
    mov.u32 %d, 0; mov.u32 %r0, 0;
    LOOP: setp.ge.u32 %q0, %r0, %a;
    @%q0 bra DONE;
    and.b32 %r1, %r0, 1; setp.eq.u32 %q1, %r1, 0;
    @%q1 bra EVEN;
    add.u32 %d, %d, 100;
    bra NEXT;
    EVEN: add.u32 %d, %d, 1;
    NEXT: add.u32 %r0, %r0, 1;
    bra.uni LOOP;
    DONE:
    """
    n = rng.integers(0, 20, 96, dtype=np.uint32)
    assert lanes(body, n).tolist() == [(i + 1) // 2 + 100 * (i // 2) for i in n.tolist()]


def test_indirect_branch():
    body = """
    and.b32 %r0, %a, 3;
    TABLE: .branchtargets L0, L1, L2, L2;
    brx.idx %r0, TABLE;
    L0: mov.u32 %d, 10; bra END;
    L1: mov.u32 %d, 11; bra END;
    L2: mov.u32 %d, 12;
    END:
    """
    assert lanes(body, LANE.astype(np.uint32)).tolist() == [[10, 11, 12, 12][i % 4] for i in range(32)]


def test_early_exit_leaves_the_others_running():
    ptx = (
        HEAD
        + """
.visible .entry k(.param .u64 k_0)
{ .reg .b64 %p; .reg .b32 %t<4>; .reg .pred %q; .shared .align 4 .b8 s[256];
mov.u32 %t0, %tid.x; setp.ge.u32 %q, %t0, 40; @%q exit;
shl.b32 %t1, %t0, 2; mov.u32 %t2, s; add.u32 %t2, %t2, %t1; st.shared.u32 [%t2], %t0;
bar.sync 0;
xor.b32 %t1, %t0, 1; shl.b32 %t1, %t1, 2; mov.u32 %t2, s; add.u32 %t2, %t2, %t1; ld.shared.u32 %t3, [%t2];
ld.param.u64 %p, [k_0]; mad.wide.u32 %p, %t0, 4, %p; st.global.u32 [%p], %t3; ret; }"""
    )
    out = np.full(64, 99, np.uint32)
    core.sim.run(ptx, "k", 1, 64, [out], strict=False)  # strict mode asks all threads to the barrier
    assert out.tolist() == [i ^ 1 for i in range(40)] + [99] * 24


# --------------------------------------------------------------------------- atomics
def test_atomics_return_what_was_there_in_lane_order():
    ptx = (
        HEAD
        + """.global .align 4 .b32 g;
.visible .entry k(.param .u64 k_0)
{ .reg .b64 %p<3>; .reg .b32 %t<4>;
mov.u32 %t0, %tid.x; mov.u64 %p0, g; atom.global.add.u32 %t1, [%p0], %t0;
ld.param.u64 %p1, [k_0]; mad.wide.u32 %p1, %t0, 4, %p1; st.global.u32 [%p1], %t1; ret; }"""
    )
    out = np.zeros(40, np.uint32)
    core.sim.run(ptx, "k", 1, 40, [out], strict=False)  # strict mode reports that these depend on the order
    assert out.tolist() == [sum(range(i)) for i in range(40)]


@pytest.mark.parametrize(
    ("form", "wanted"),
    [("add.u32", 10 + 3 * 7), ("max.s32", 10), ("min.u32", 7), ("exch.b32", 7), ("xor.b32", 10 ^ 7), ("inc.u32", 0x3),
     ("and.b32", 2)],
)  # fmt: skip
def test_red_and_atom_forms(form, wanted):
    opcode = "atom" if form.startswith("exch") else "red"
    target = "%t2, " if opcode == "atom" else ""
    ptx = (
        HEAD
        + f"""
.visible .entry k(.param .u64 k_0)
{{ .reg .b64 %p; .reg .b32 %t<4>;
mov.u32 %t1, 7; ld.param.u64 %p, [k_0]; {opcode}.global.{form} {target}[%p], %t1; ret; }}"""
    )
    out = np.array([10], np.uint32)
    core.sim.run(ptx, "k", 1, 3, [out])
    if form == "inc.u32":
        wanted = 2  # 10 is past 7: 0, then 1, then 2
    assert out[0] == wanted


def test_compare_and_swap_lets_one_win():
    ptx = (
        HEAD
        + """
.visible .entry k(.param .u64 k_0, .param .u64 k_1)
{ .reg .b64 %p; .reg .b32 %t<4>;
mov.u32 %t0, %tid.x; add.u32 %t1, %t0, 100; ld.param.u64 %p, [k_0]; atom.global.cas.b32 %t2, [%p], 5, %t1;
ld.param.u64 %p, [k_1]; mad.wide.u32 %p, %t0, 4, %p; st.global.u32 [%p], %t2; ret; }"""
    )
    cell, old = np.array([5], np.uint32), np.zeros(32, np.uint32)
    core.sim.run(ptx, "k", 1, 32, [cell, old], strict=False)  # strict mode lets others win as well, and says so
    assert cell[0] == 100 and old.tolist() == [5] + [100] * 31


# --------------------------------------------------------------------------- what there is not
STRANGE = [
    ("add.sat.s32 %0, %0, 1;", "this form"),
    ("shl.wide.b32 %0, %0, 1;", ".wide"),
    ("cvt.rn.satfinite.s32.f32 %0, 1.0;", ".satfinite"),
    ("cp.async.ca.shared.global.L2::cache_hint [%0], [%1], 4, %1;", ".L2::cache_hint"),
    ("ld.global.sideways.u32 %0, [%1];", ".sideways"),
    ("st.async.relaxed.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %0, [%0];", ".relaxed"),
    ("mbarrier.arrive.relaxed.cluster.shared::cta.b64 _, [%0];", ".relaxed"),
    ("cp.async.bulk.tensor.2d.shared::cta.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%0, %0}], [%0];",
     ".im2col"),
    ("shfl.sync.b32.up %0, %0, 1, 0, -1;", "this form"),
    ("bar.sync.aligned 0;", ".aligned"),
    ("bra.sometimes L;", ".sometimes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "named"), STRANGE, ids=[s[0].split()[0] for s in STRANGE])
def test_a_modifier_that_is_not_understood_stops_with_text_and_line(text, named):
    ptx = HEAD + ".visible .entry k() {\n.reg .b32 %r0; .reg .b64 %r1;\n.loc 1 12 0\nL: "
    ptx = ptx.replace(".visible", '.file 1 "/x/kernel.cu"\n.visible')
    text = text.replace("%0", "%r0").replace("%1", "%r1")
    with pytest.raises(core.sim.PtxError) as caught:
        core.sim.run(f"{ptx}{text}\nret; }}", "k", 1, 32, [])
    said = str(caught.value)
    assert f"does not have {named} of `{text.rstrip(';')}` (/x/kernel.cu:12)" in said
    assert text.split(".")[0] in said.split("it has")[1]


ORDERS = {  # what ptxas takes as well -> how the manual writes it
    "atom.add.release.gpu.u32 %r1, [%p], 1;": "atom.release.gpu.add.u32",
    "atom.global.sys.add.u32 %r1, [%p], 1;": "atom.sys.global.add.u32",
    "red.and.release.cta.b32 [%p], %r1;": "red.release.cta.and.b32",
    "ldmatrix.sync.aligned.x4.m8n8.shared.b16 {%r1, %r2, %r3, %r4}, [%r5];": "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
    "ldmatrix.sync.aligned.trans.x1.m8n8.shared.b16 {%r1}, [%r5];": "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16",
    "stmatrix.sync.aligned.x2.m8n8.shared.b16 [%r5], {%r1, %r2};": "stmatrix.sync.aligned.m8n8.x2.shared.b16",
    "ld.global.relaxed.gpu.u32 %r1, [%p];": "ld.relaxed.gpu.global.u32",
    "shfl.down.sync.b32 %r1, %r2, %r3, 31, -1;": "shfl.sync.down.b32",
    "vote.ballot.sync.b32 %r1, 1, -1;": "vote.sync.ballot.b32",
}


@pytest.mark.parametrize("text", ORDERS)
def test_modifiers_of_memory_and_warp_instructions_come_in_any_order(text):
    head = f"{HEAD}.visible .entry k(.param .u64 q) {{ .reg .b64 %p; .reg .b32 %r<9>; .shared .align 16 .b8 s[512];"
    program = Simulator(f"{head} ld.param.u64 %p, [q]; mov.u32 %r5, s; {text} ret; }}").program("k")
    assert ".".join(program.instructions[2].names) == ORDERS[text]


def test_an_order_does_not_let_a_strange_modifier_in():
    with pytest.raises(PtxError, match=r"does not have \.gentle of"):
        lanes("atom.add.gentle.gpu.u32 %d, [%p], 1;", LANE.astype(np.uint32))


def test_the_size_of_a_warp_is_a_constant():
    assert lanes("mov.u32 %r0, WARP_SZ; add.u32 %d, %r0, WARP_SZ;", LANE.astype(np.uint32)).tolist() == [64] * 32
    assert lanes("vote.sync.ballot.b32 %d, 1, -1;", LANE.astype(np.uint32)).tolist() == [2**32 - 1] * 32


@pytest.mark.parametrize("kind", ["f16x2", "bf16x2"])
def test_atomic_sums_of_pairs_round_each_once(kind):
    one, more = {"f16x2": (0x3C00, 0x1200), "bf16x2": (0x3F80, 0x3BC0)}[kind]  # 1, and 3/4 of its last place
    y = np.array([one | one << 16], np.uint32)
    text = f"""{HEAD}.visible .entry k(.param .u64 q) {{ .reg .b64 %p; .reg .b32 %r;
    ld.param.u64 %p, [q]; atom.global.add.noftz.{kind} %r, [%p], %r;
    red.global.add.noftz.{kind} [%p], {more}; ret; }}"""
    core.sim.run(text, "k", 1, 1, [y])
    assert int(y[0]) == (one + 1) | one << 16
