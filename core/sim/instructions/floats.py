"""Floating-point instructions in f32, f64, bf16, f16 and the packed pairs, exact in every rounding mode.

The .approx functions are computed in f64 (approximate.py) and rounded once. NaN results are PTX's canonical ones.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from core.sim.instructions.approximate import FUNCTIONS
from core.sim.instructions.arith import INTEGER, integer_step
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Read, Step, bits_reader, need, writer
from core.sim.instructions.rounding import from_bf16, to_bf16, to_f16, to_f32, to_odd, two_product, two_sum
from core.sim.ptx.parser import Instruction, Operand, Register
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES, UNSIGNED, Array
from core.sim.resident import Group

FAMILY = Family(pure=True)
opcode = FAMILY.opcode

NAN64 = np.array([0x7FF8000000000000], np.uint64).view(np.float64)[0]
NAN32 = np.array([0x7FFFFFFF], np.uint32).view(np.float32)[0]
TINY = np.float32(1.1754943508222875e-38)  # the smallest normal f32
SMALL, HUGE = 2.0**-900, 2.0**990  # f64 sizes beyond which the error terms of a product may not be representable
TOGETHER = 32768  # products of fma instructions that are computed in one go
DROPPED, LEAST = np.int64(35), np.iinfo(np.int64).min
LOW, HALF = np.int64(0x1FFFFFFF), np.int64(0x10000000)  # the bits of an f64 that an f32 has no room for; their middle


@dataclass(frozen=True)
class FloatFormat:
    """How values of a type are computed with: `bits` each, `packed` together in one register."""

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


def fma_f32(a: Array, b: Array, c: Array) -> Array:
    """The single rounding of a * b + c in f32; a and b are f32 values held in f64, c is f32 (or f64)."""
    product, total = _scratch(np.broadcast_shapes(a.shape, b.shape, c.shape))
    np.multiply(a, b, out=product)
    total[...] = c
    np.add(product, total, out=total)
    result = total.astype(np.float32)
    return result if rounded_once(result, total, product) else _fma_again(a * b, c.astype(np.float64), result)


def rounded_once(result: Array, total: Array, spare: Array) -> bool:
    """Whether rounding f64 sums `total` to f32 `result` is sure to give what rounding the exact sums would.

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


def _fma_again(product: Array, added: Array, result: Array) -> Array:
    """`result` with every element rounded anew that two roundings may have spoilt, from exact products in f64."""
    product, added = np.broadcast_arrays(product, added)
    total = product + added
    redo = (((total.view(np.int64) & LOW) == HALF) | (np.abs(result) <= TINY)) & (total != 0)
    if redo.any():
        result[redo] = to_odd(*two_sum(product[redo], added[redo])).astype(np.float32)
    return canonical(result)


class _Scratch(threading.local):
    """Two f64 arrays a thread, used again and again so that they stay in the core's cache."""

    shape: tuple[int, ...] = ()
    arrays: tuple[Array, Array]


_SCRATCH = _Scratch()


def _scratch(shape: tuple[int, ...]) -> tuple[Array, Array]:
    if _SCRATCH.shape != shape:
        _SCRATCH.shape = shape
        _SCRATCH.arrays = np.empty(shape), np.empty(shape)
    return _SCRATCH.arrays


def _fma_of_singles(a: Array, b: Array, c: Array) -> Array:
    return fma_f32(a.astype(np.float64), b.astype(np.float64), c)


# --------------------------------------------------------------------------- builders
def _finish(ins: Instruction) -> Callable[[Array], Array]:
    """What comes after an f32 result: canonical NaN, .ftz, .sat, .relu."""
    ftz, sat = "ftz" in ins.names, "sat" in ins.names

    def finish(value: Array) -> Array:
        value = canonical(value)
        if ftz:
            value = flush(value)
        if sat:
            value = saturate(value)
        return value

    return finish


def _mode(ins: Instruction) -> str:
    return next((n for n in ins.names if n in ROUNDINGS), "rn")


def arithmetic(native: Callable[..., Array], exact: Callable[..., Array] | None) -> Callable[..., Step]:
    """A builder: `native` for round-to-nearest f32 and f64, `exact` through f64 for all else."""

    def builder(program: Program, ins: Instruction) -> Step:
        name, mode, ftz = ins.names[-1], _mode(ins), "ftz" in ins.names
        form = FORMATS[name]
        reads = [readable(program, o, name, ftz) for o in ins.operands[1:]]
        write, finish = writer(program, ins.operands[0]), _finish(ins)
        if name == "f64":
            return lambda g: write(g, canonical(native(*(read(g) for read in reads))))
        if name in ("f32", "f32x2") and mode == "rn":
            if len(reads) == 2 and form.packed == 1:
                first, second = reads
                return lambda g: write(g, finish(native(first(g), second(g))))
            return lambda g: write(g, packed_bits(form, finish(native(*(read(g) for read in reads))).view(np.uint32)))
        need(ins, exact is not None)
        assert exact is not None
        relu, sat = "relu" in ins.names, "sat" in ins.names

        def compute(g: Group) -> None:
            value = exact(*(read(g) for read in reads), mode=mode)
            if relu:
                value = np.where(value > 0, value, np.where(np.isnan(value), value, 0.0))
            if sat:
                value = saturate(value)
            bits = form.encode(value, mode)
            write(g, packed_bits(form, form.flush_bits(bits) if ftz else bits))

        return compute

    return builder


_ADD = arithmetic(lambda a, b: a + b, exact_add)
_SUB = arithmetic(lambda a, b: a - b, lambda a, b, mode: exact_add(a, -b, mode))
_MUL = arithmetic(lambda a, b: a * b, exact_multiply)
_DIV = arithmetic(lambda a, b: a / b, exact_divide)


def _is_float(ins: Instruction) -> bool:
    return ins.names[-1] in FORMATS


def _either(name: str, floating: Callable[..., Step], forms: str) -> None:
    """Opcodes that floats and integers share."""

    @opcode(name, f"{INTEGER[name][1]} | {forms}")
    def _(program: Program, ins: Instruction) -> Step:
        return floating(program, ins) if _is_float(ins) else integer_step(program, ins)


SUMS = "$round? ftz? sat? f32 | $round? ftz? f32x2 | rn? f64 | rn? ftz? sat? f16/f16x2 | rn? bf16/bf16x2"
_either("add", _ADD, SUMS)
_either("sub", _SUB, SUMS)
_either("div", _DIV, "approx/full ftz? f32 | $round ftz? f32 | rn f64")
opcode("mul", SUMS)(_MUL)


@opcode(
    "fma",
    "$round ftz? sat? f32 | $round ftz? f32x2 | rn f64 | rn ftz? sat? f16/f16x2 | rn ftz? relu f16/f16x2"
    " | rn relu? bf16/bf16x2",
)
@opcode("mad", "$round ftz? sat? f32 | rn f64")
def _fma(program: Program, ins: Instruction) -> Step:
    name = ins.names[-1]
    if name == "f64":
        return arithmetic(fma_f64, None)(program, ins)
    if name != "f32" or _mode(ins) != "rn" or "sat" in ins.names or "ftz" in ins.names:
        return arithmetic(_fma_of_singles, exact_fma)(program, ins)
    a, b = (_as_double(program, o) for o in ins.operands[1:3])
    c, write = bits_reader(program, ins.operands[3], np.dtype(np.float32)), writer(program, ins.operands[0])
    return lambda g: write(g, fma_f32(a(g), b(g), c(g)))


def is_plain_fma(ins: Instruction) -> bool:
    return ins.opcode == "fma.rn.f32" and ins.predicate is None


def independent(run: list[Instruction]) -> bool:
    """Whether the last instruction of a run neither reads nor writes what an earlier one writes."""
    written = {ins.operands[0] for ins in run[:-1]}
    return written.isdisjoint(run[-1].operands)


def fma_run(program: Program, run: list[Instruction]) -> Step:
    """Independent fma of one run, computed together: NumPy's cost is per call, and matmuls are made of these."""
    singles = [_fma(program, ins) for ins in run]
    sources = [(_as_double(program, i.operands[1]), _as_double(program, i.operands[2])) for i in run]
    added = [bits_reader(program, i.operands[3], np.dtype(np.float32)) for i in run]
    targets = [program.number(i.operands[0]) for i in run if isinstance(i.operands[0], Register)]
    count = len(run)

    def fill(g: Group, part: range, product: Array, total: Array) -> None:
        for row, i in enumerate(part):
            a, b = sources[i]
            np.multiply(a(g), b(g), out=product[row])
            total[row] = added[i](g)

    def together(g: Group) -> None:
        if g.picked is not None or g.mask is not None:
            for step in singles:
                step(g)
            return
        size = max(1, TOGETHER // g.lanes)
        for first in range(0, count, size):
            part = range(first, min(first + size, count))
            product, total = _scratch((len(part), g.lanes))
            fill(g, part, product, total)
            np.add(product, total, out=total)
            result = total.astype(np.float32)
            if not rounded_once(result, total, product):
                fill(g, part, product, total)  # once more: both were overwritten
                result = _fma_again(product, total, result)
            bits = result.view(np.uint32)
            for row, i in enumerate(part):
                g.registers[targets[i]] = bits[row]
            if g.owned:
                g.owned.difference_update(targets)

    return together


def _as_double(program: Program, operand: Operand) -> Read:
    """Reads an f32 as f64, and keeps that for the next time: matmuls read one element many times."""
    read = bits_reader(program, operand, np.dtype(np.float32))
    if not isinstance(operand, Register):
        constant = read(None).astype(np.float64)  # type: ignore[arg-type]
        return lambda g: constant
    number = program.number(operand)

    def widen(g: Group) -> Array:
        if g.picked is not None:
            return read(g).astype(np.float64)
        value = g.registers[number]
        known = g.doubles.get(number)
        if known is not None and known[0] is value:
            return known[1]
        wide = value.view(np.float32).astype(np.float64)
        g.doubles[number] = (value, wide)
        return wide

    return widen


# --------------------------------------------------------------------------- minimum, sign, tests
def _extreme(pick: Callable[[Array, Array], Array], zero: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """min or max: a NaN loses to a number, and -0 is less than +0."""

    def compute(a: Array, b: Array) -> Array:
        result = pick(a, b)
        at_zero = result == 0
        if at_zero.any():
            bits = UNSIGNED[8 * a.dtype.itemsize]
            signed = zero(a.view(bits), b.view(bits)).view(a.dtype)
            result = np.where(at_zero & (a == 0) & (b == 0), signed, result)
        return result

    return compute


def _least(a: Array, b: Array) -> Array:
    """np.fmin but for signalling NaNs, which lose here on every processor."""
    return np.where((a <= b) | np.isnan(b), a, b)


def _most(a: Array, b: Array) -> Array:
    return np.where((a >= b) | np.isnan(b), a, b)


EXTREMES = {"min": _extreme(_least, np.bitwise_or), "max": _extreme(_most, np.bitwise_and)}


EXTREME = (
    "$int | ftz? NaN? f32/f16/f16x2 | ftz? NaN? xorsign abs f32/f16/f16x2 | f64"
    " | NaN? bf16/bf16x2 | NaN? xorsign abs bf16/bf16x2"
)


@opcode("min", EXTREME)
@opcode("max", EXTREME)
def _minmax(program: Program, ins: Instruction) -> Step:
    if not _is_float(ins):
        return integer_step(program, ins)
    name, ftz = ins.names[-1], "ftz" in ins.names
    form, nan, magnitude = FORMATS[name], "NaN" in ins.names, "xorsign" in ins.names
    reads = [readable(program, o, name, ftz) for o in ins.operands[1:]]
    write, compute, relu = writer(program, ins.operands[0]), EXTREMES[ins.names[0]], "relu" in ins.names

    def extreme(g: Group) -> None:
        values = [read(g) for read in reads]
        result = values[0]
        for other in values[1:]:
            if magnitude:
                sign = np.signbit(result) ^ np.signbit(other)
                size = compute(np.abs(result), np.abs(other))
                result = np.where(sign, -size, size)
            else:
                result = compute(result, other)
        if nan:
            bad = np.isnan(values[0])
            for other in values[1:]:
                bad = bad | np.isnan(other)
            result = np.where(bad, result.dtype.type(np.nan), result)
        if relu:
            result = np.where(result > 0, result, np.where(np.isnan(result), result, result.dtype.type(0)))
        bits = canonical(result).view(np.uint32) if form.bits == 32 else form.encode(result, "rn")
        write(g, packed_bits(form, bits))

    return extreme


@opcode("neg", "$signed | ftz? f32 | f64/$half")
@opcode("abs", "$signed | ftz? f32 | f64/$half")
def _sign(program: Program, ins: Instruction) -> Step:
    if not _is_float(ins):
        return integer_step(program, ins)
    form = FORMATS[ins.names[-1]]
    whole = UNSIGNED[form.bits * form.packed]
    read, write = bits_reader(program, ins.operands[1], whole), writer(program, ins.operands[0])
    signs = whole.type(sum(1 << (form.bits * (i + 1) - 1) for i in range(form.packed)))
    ftz = "ftz" in ins.names and form.bits == 32
    change: Callable[[Array], Array] = (lambda v: v ^ signs) if ins.names[0] == "neg" else (lambda v: v & ~signs)
    if ftz:
        return lambda g: write(g, flush(change(read(g)).view(np.float32)))
    return lambda g: write(g, change(read(g)))


@opcode("copysign", "f32/f64")
def _copysign(program: Program, ins: Instruction) -> Step:
    """copysign d, a, b: b with a's sign."""
    kind = TYPES[ins.names[-1]].numpy
    a, b = (bits_reader(program, o, kind) for o in ins.operands[1:3])
    write = writer(program, ins.operands[0])
    return lambda g: write(g, np.copysign(b(g), a(g)))


TESTS: dict[str, Callable[[Array], Array]] = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda a: ~np.isnan(a),
    "notanumber": np.isnan,
    "normal": lambda a: np.isfinite(a) & (np.abs(a) >= np.finfo(a.dtype).tiny),
    "subnormal": lambda a: (a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny),
}


@opcode("testp", "finite/infinite/number/notanumber/normal/subnormal f32/f64")
def _testp(program: Program, ins: Instruction) -> Step:
    test = TESTS[ins.names[1]]
    read, write = bits_reader(program, ins.operands[1], TYPES[ins.names[-1]].numpy), writer(program, ins.operands[0])
    return lambda g: write(g, test(read(g)))


# --------------------------------------------------------------------------- functions
DIRECTED: dict[str, Callable[[Array, str], Array]] = {
    "rcp": lambda a, mode: exact_divide(np.ones(1, a.dtype), a, mode),
    "sqrt": exact_sqrt,
}


@opcode("rcp", "approx ftz? f32 | $round ftz? f32 | approx ftz f64 | rn f64")
@opcode("sqrt", "approx ftz? f32 | $round ftz? f32 | rn f64")
@opcode("rsqrt", "approx ftz? f32/f64")
@opcode("ex2", "approx ftz? f32 | approx f16/f16x2 | approx ftz bf16/bf16x2")
@opcode("lg2", "approx ftz? f32")
@opcode("sin", "approx ftz? f32")
@opcode("cos", "approx ftz? f32")
@opcode("tanh", "approx f32/$half")
def _function(program: Program, ins: Instruction) -> Step:
    name = ins.names[-1]
    form, ftz, mode = FORMATS[name], "ftz" in ins.names, _mode(ins)
    read, write = readable(program, ins.operands[1], name, ftz), writer(program, ins.operands[0])
    function = FUNCTIONS[ins.names[0]]
    directed = mode != "rn"
    finish = _finish(ins)

    def apply(g: Group) -> None:
        x = read(g)
        if directed:
            write(g, finish(to_f32(DIRECTED[ins.names[0]](x, mode), mode)))
            return
        value: Array = np.asarray(function(x.astype(np.float64)))
        if form.bits == 64:
            write(g, canonical(form.flush(value) if ftz else value))
        elif form.bits == 32:
            write(g, packed_bits(form, finish(value.astype(np.float32)).view(np.uint32)))
        else:
            bits = form.encode(value, "rn")
            write(g, packed_bits(form, form.flush_bits(bits) if ftz else bits))

    return apply


def rounded(value: Array, dtype: np.dtype[Any]) -> Array:
    """f64 -> f32 or f64."""
    return value.astype(dtype)
