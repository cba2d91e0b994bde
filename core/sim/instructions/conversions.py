"""cvt in all the forms that compilers emit: between integers, floats and packed halves, with rounding and .sat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.instructions import eight_bits
from core.sim.instructions.float_formats import FORMATS, canonical, flush, packed_bits, readable, saturate
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, bits_reader, disowning, need, writer
from core.sim.instructions.rounding import to_f32, to_f64, to_odd, to_tf32
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES, Array, Type
from core.sim.ptx.syntax import Instruction
from core.sim.resident import Group

FAMILY = Family(pure=True)
opcode = FAMILY.opcode

TO_INTEGER: dict[str, Callable[[Array], Array]] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@opcode(
    "cvt",
    "sat? $any_int $any_int | $whole ftz? sat? $any_int f32 | $whole sat? $any_int f16/f64 | $whole $any_int bf16"
    " | $round $float $any_int"
    " | $round/$whole? ftz? sat? $float $float | rn/rz relu $float $float"
    f" | rn/rz relu? bf16x2/f16x2 f32 | rna/rn/rz tf32 f32 | {eight_bits.FORMS}",
)
def _cvt(program: Program, ins: Instruction) -> Step:
    target, source = ins.names[-2], ins.names[-1]
    if {target, source} & set(eight_bits.EIGHT_BITS):
        return eight_bits.convert(program, ins)
    to, of = TYPES[target], TYPES[source]
    if target in ("bf16x2", "f16x2"):
        return _pair(program, ins)
    if target == "tf32":
        mode = next((n for n in ins.names if n in ("rna", "rn", "rz")), "rna")
        read, write = bits_reader(program, ins.operands[1], np.dtype(np.float32)), writer(program, ins.operands[0])
        return lambda g: write(g, to_tf32(read(g), mode))
    floating = source in FORMATS, target in FORMATS
    builder = {
        (False, False): _integers,
        (True, False): _float_to_integer,
        (False, True): _integer_to_float,
        (True, True): _floats,
    }[floating]
    return builder(program, ins, to, of)


def _pair(program: Program, ins: Instruction) -> Step:
    """cvt.rn.bf16x2.f32 d, a, b: a is the upper half."""
    need(ins, ins.names[-1] == "f32" and len(ins.operands) == 3)
    form, mode, relu = FORMATS[ins.names[-2]], _rounding(ins), "relu" in ins.names
    high, low = (bits_reader(program, o, np.dtype(np.float32)) for o in ins.operands[1:3])
    write = writer(program, ins.operands[0])

    def convert(g: Group) -> None:
        halves = []
        for read in (low, high):
            value = read(g)
            if relu:
                value = np.where(value > 0, value, np.where(np.isnan(value), value, np.float32(0)))
            halves.append(form.encode(value, mode).astype(np.uint32))
        write(g, halves[0] | (halves[1] << np.uint32(16)))

    return convert


def _rounding(ins: Instruction) -> str:
    return next((n for n in ins.names if n in ("rn", "rz", "rm", "rp", "rna")), "rn")


def _integers(program: Program, ins: Instruction, to: Type, of: Type) -> Step:
    read = bits_reader(program, ins.operands[1], of.numpy)
    write = writer(program, ins.operands[0])
    if "sat" in ins.names:
        limits = np.iinfo(to.numpy)
        low, high = max(limits.min, np.iinfo(of.numpy).min), min(limits.max, np.iinfo(of.numpy).max)
        return lambda g: write(g, np.clip(read(g), low, high).astype(to.numpy))
    if to.bits == of.bits:
        return disowning(program, ins.operands[1], lambda g: write(g, read(g).view(to.numpy)))
    # A widening keeps the source's sign; a register wider still than the type takes that of the type.
    return lambda g: write(g, read(g).astype(to.numpy))


def _float_to_integer(program: Program, ins: Instruction, to: Type, of: Type) -> Step:
    """Values out of range saturate; NaN becomes 0, but the top bit from f64 and in 64 bits (PTX ISA, cvt)."""
    rounding = next((TO_INTEGER[n] for n in ins.names if n in TO_INTEGER), np.trunc)
    read, write = readable(program, ins.operands[1], of.name, "ftz" in ins.names), writer(program, ins.operands[0])
    limits = np.iinfo(to.numpy)
    low, high = float(limits.min), float(limits.max)
    top = limits.min if to.kind == "s" else limits.max + 1 >> 1
    of_nan = top if to.bits == 64 or of.name == "f64" else 0

    def convert(g: Group) -> None:
        value = rounding(read(g).astype(np.float64))
        inside = (value >= low) & (value < high + (0 if to.bits == 64 else 1))
        result = np.where(inside, value, 0).astype(to.numpy)
        if not inside.all():
            result = np.where(value < low, to.numpy.type(limits.min), result)
            result = np.where(value >= high, to.numpy.type(limits.max), result)
            result = np.where(np.isnan(value), to.numpy.type(of_nan), result)
        write(g, result)

    return convert


def _integer_to_float(program: Program, ins: Instruction, to: Type, of: Type) -> Step:
    form, mode = FORMATS[to.name], _rounding(ins)
    read, write = bits_reader(program, ins.operands[1], of.numpy), writer(program, ins.operands[0])

    def convert(g: Group) -> None:
        value = read(g)
        if to.name == "f64":
            write(g, value.astype(np.float64) if of.bits < 64 or mode == "rn" else to_f64(*_halves(value), mode))
        elif to.name == "f32" and mode == "rn":
            write(g, value.astype(np.float32))
        else:
            write(g, form.encode(_exact(value), mode))

    return convert


def _exact(value: Array) -> Array:
    """Integers as f64, rounded to odd where 64 bits do not fit."""
    return value.astype(np.float64) if value.dtype.itemsize < 8 else to_odd(*_halves(value))


def _halves(value: Array) -> tuple[Array, Array]:
    """64-bit integers -> (the nearest f64, its error)."""
    high = (value >> value.dtype.type(32)).astype(np.float64) * 4294967296.0
    low = (value & value.dtype.type(0xFFFFFFFF)).astype(np.float64)
    total = high + low
    return total, (high - total) + low


def _floats(program: Program, ins: Instruction, to: Type, of: Type) -> Step:
    """Between float formats; with .rni and its like, to a whole number of the same format."""
    form, mode, ftz = FORMATS[to.name], _rounding(ins), "ftz" in ins.names
    whole = next((TO_INTEGER[n] for n in ins.names if n in TO_INTEGER), None)
    read, write = (
        readable(program, ins.operands[1], of.name, ftz and of.name == "f32"),
        writer(program, ins.operands[0]),
    )
    sat, relu = "sat" in ins.names, "relu" in ins.names

    def convert(g: Group) -> None:
        value = read(g)
        if whole is not None:
            value = whole(value)
        if sat:
            value = saturate(value)
        if relu:
            value = np.where(value > 0, value, np.where(np.isnan(value), value, value.dtype.type(0)))
        if to.name == "f64":
            write(g, value.astype(np.float64))
        elif to.name == "f32":
            single = canonical(to_f32(value, mode) if value.dtype == np.float64 else value.astype(np.float32))
            write(g, flush(single) if ftz else single.copy())
        else:
            write(g, packed_bits(form, form.encode(value, mode)))

    return convert
