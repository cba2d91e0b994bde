"""Arithmetic of floats against exact rational numbers: roundings, special values, halves, packed pairs, conversions."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np
import pytest

from core.testing.ptx import f32, lanes

rng = np.random.default_rng(7)
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


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_a_signalling_nan_loses_to_a_number_however_many_threads_there_are(threads):
    """NumPy's fmin gives NaN or the number, by the length of its arrays."""
    signalling, number = np.full(threads, 0xFFBD1B5F, np.uint32), np.full(threads, 0xCD0A7925, np.uint32)
    for name in ("min", "max"):
        for a, b in ((signalling, number), (number, signalling)):
            assert (lanes(f"{name}.f32 %d, %a, %b;", a, b) == 0xCD0A7925).all()


def test_a_finite_product_in_f64_does_not_outweigh_infinity():
    huge = np.array([0x7FEFFFFFFFFFFFFF], np.uint64)
    minus = np.array([0xFFF0000000000000], np.uint64)
    assert lanes("fma.rn.f64 %d, %a, %b, %c;", huge, huge, minus, out=np.uint64)[0] == minus[0]
