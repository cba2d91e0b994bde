"""Floating-point instructions in f32, f64, bf16, f16 and the packed pairs, exact in every rounding mode.

The .approx functions are computed in f64 (approximate.py) and rounded once. NaN results are PTX's canonical ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from core.sim.instructions.approximate import FUNCTIONS
from core.sim.instructions.arith import INTEGER, integer_step
from core.sim.instructions.float_formats import (
    FORMATS,
    ROUNDINGS,
    canonical,
    exact_add,
    exact_divide,
    exact_fma,
    exact_multiply,
    exact_sqrt,
    flush,
    fma_again,
    fma_f32,
    fma_f64,
    fma_of_singles,
    packed_bits,
    readable,
    rounded_once,
    saturate,
    scratch,
)
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Read, Step, bits_reader, need, writer
from core.sim.instructions.rounding import to_f32
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES, UNSIGNED, Array
from core.sim.ptx.syntax import Instruction, Operand, Register
from core.sim.resident import Group

FAMILY = Family(pure=True)
opcode = FAMILY.opcode

TOGETHER = 32768  # products of fma instructions that are computed in one go


def _finish(ins: Instruction) -> Callable[[Array], Array]:
    """The modifiers of an f32 result: canonical NaN, .ftz, .sat, .relu."""
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
        return arithmetic(fma_of_singles, exact_fma)(program, ins)
    a, b = (_as_double(program, o) for o in ins.operands[1:3])
    c, write = bits_reader(program, ins.operands[3], np.dtype(np.float32)), writer(program, ins.operands[0])
    return lambda g: write(g, fma_f32(a(g), b(g), c(g)))


def is_plain_fma(ins: Instruction) -> bool:
    return ins.opcode == "fma.rn.f32" and ins.predicate is None


def independent(run: list[Instruction]) -> bool:
    """Whether the last instruction of a run neither reads nor writes a result of an earlier one."""
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
            product, total = scratch((len(part), g.lanes))
            fill(g, part, product, total)
            np.add(product, total, out=total)
            result = total.astype(np.float32)
            if not rounded_once(result, total, product):
                fill(g, part, product, total)  # once more: both were overwritten
                result = fma_again(product, total, result)
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
        cached = g.doubles.get(number)
        if cached is not None and cached[0] is value:
            return cached[1]
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
    f"{INTEGER['min'][1]} | ftz? NaN? f32/f16/f16x2 | ftz? NaN? xorsign abs f32/f16/f16x2 | f64"
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
