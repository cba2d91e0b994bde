"""Floating-point instructions that are strings of records: other roundings and formats than the machine computes in.

Operands are carried as f64, results rounded to odd and encoded once (exact.c), as the interpreter does it. Instructions
with a row of their own in the machine (add.f32, fma.rn.f32, ...) use that row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.instructions.bit_fields import PLACES
from core.sim.native.forms import UNSIGNED_NAMES
from core.sim.native.translation import FormFamily, Translation
from core.sim.ptx.register_types import TYPES
from core.sim.ptx.syntax import Immediate, Instruction, Operand, Pair

PACKED = {"f16x2": "f16", "bf16x2": "bf16", "f32x2": "f32"}
BITS = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}
ROUNDINGS = ("rn", "rz", "rm", "rp", "rna")
WHOLE = ("rni", "rzi", "rmi", "rpi")
COMBINE = ("and", "or", "xor")
FAMILY = FormFamily()


def has_row(draft: Translation) -> bool:
    """Whether the machine has an instruction as PTX spells it."""
    return draft.name in draft.machine.rows


def as_spelled(draft: Translation, ins: Instruction) -> None:
    operands = [part for o in ins.operands for part in ((o.first, o.second) if isinstance(o, Pair) else (o,))]
    draft.by_row(draft.name, operands, ins.names[-1] in ("f32", "f64"))


def mode_of(ins: Instruction) -> str:
    return next((n for n in ins.names if n in ROUNDINGS), "rn")


# --------------------------------------------------------------------------- values as f64
def made(draft: Translation, name: str, *registers: int, wide: bool = True) -> int:
    """A fresh register with the result of a record."""
    number = draft.fresh(wide)
    draft.emit(name, [number, *registers])
    return number


def parts_of(draft: Translation, operand: Operand, kind: str) -> list[int]:
    """The registers with an operand's bits, two of a packed pair: the low one first."""
    if kind not in PACKED:
        return [draft.source(operand, f"b{BITS[kind]}", kind in ("f32", "f64"))]
    bits = 2 * BITS[PACKED[kind]]
    whole = draft.source(operand, f"b{bits}")
    return [made(draft, f"low.b{bits // 2}", whole, wide=False), made(draft, f"high.b{bits}", whole, wide=False)]


def carried(draft: Translation, operand: Operand, kind: str, ftz: bool = False) -> list[int]:
    """An operand's numbers as f64."""
    one = PACKED.get(kind, kind)
    values = parts_of(draft, operand, kind)
    if one != "f64":
        values = [made(draft, f"carry.{one}", value) for value in values]
    return [made(draft, f"flush.{one}", value) for value in values] if ftz else values


def deliver(draft: Translation, target: Operand, values: list[int], kind: str, mode: str, ftz: bool = False) -> None:
    """Round f64 values to a format and write them."""
    one = PACKED.get(kind, kind)
    if one == "f64":
        bits = [made(draft, "flush.f64", v) if ftz else v for v in values]
    else:
        bits = [made(draft, f"encode.{mode}.{one}", v, wide=False) for v in values]
        bits = [made(draft, f"flushed.{one}", b, wide=False) for b in bits] if ftz else bits
    write(draft, target, bits, kind)


def write(draft: Translation, target: Operand, bits: list[int], kind: str) -> None:
    """Write one register's bits, or pack two."""
    width = BITS[PACKED.get(kind, kind)] * len(bits)
    number, after = draft.target(target, f"b{width}")
    name = f"pack.b{width}" if len(bits) == 2 else "mov.b64" if width == 64 else "mov.b32"
    draft.emit(name, [number, *bits])
    after()


def finished(draft: Translation, ins: Instruction, values: list[int]) -> list[int]:
    """.relu and .sat of results that are not rounded yet."""
    for name in ("relu", "sat"):
        if name in ins.names:
            values = [made(draft, f"{name}.carried", value) for value in values]
    return values


# --------------------------------------------------------------------------- arithmetic
def _sum(draft: Translation, mode: str, a: int, b: int) -> int:
    return made(draft, "odd.add.rm" if mode == "rm" else "odd.add", a, b)


EXACT: dict[str, Callable[..., int]] = {
    "add": _sum,
    "sub": lambda draft, mode, a, b: _sum(draft, mode, a, made(draft, "neg.carried", b)),
    "mul": lambda draft, mode, a, b: made(draft, "odd.mul", a, b),
    "div": lambda draft, mode, a, b: made(draft, "odd.div", a, b),
    "fma": lambda draft, mode, a, b, c: _sum(draft, mode, made(draft, "odd.mul", a, b), c),
}
EXACT["mad"] = EXACT["fma"]


@FAMILY.form("add", "sub", "mul", "div", "fma", "mad")
def _arithmetic(draft: Translation, ins: Instruction) -> None:
    kind, mode, ftz = ins.names[-1], mode_of(ins), "ftz" in ins.names
    if has_row(draft) or PACKED.get(kind, kind) not in BITS or kind == "f64":
        as_spelled(draft, ins)
        return
    columns = [carried(draft, o, kind, ftz) for o in ins.operands[1:]]
    values = [EXACT[ins.names[0]](draft, mode, *row) for row in zip(*columns, strict=True)]
    if "sat" in ins.names and kind == "f32" and mode == "rn":  # rounded first, as plain f32 is
        values = [made(draft, "carry.f32", made(draft, "encode.rn.f32", v, wide=False)) for v in values]
    deliver(draft, ins.operands[0], finished(draft, ins, values), kind, mode, ftz)


@FAMILY.form("min", "max")
def _extreme(draft: Translation, ins: Instruction) -> None:
    kind, ftz = ins.names[-1], "ftz" in ins.names
    if has_row(draft) or PACKED.get(kind, kind) not in BITS:
        as_spelled(draft, ins)
        return
    columns = [carried(draft, o, kind, ftz) for o in ins.operands[1:]]
    name = ".".join(n for n in ins.names if n in ("min", "max", "NaN", "xorsign")) + ".carried"
    values = columns[0]
    for column in columns[1:]:
        values = [made(draft, name, a, b) for a, b in zip(values, column, strict=True)]
    deliver(draft, ins.operands[0], finished(draft, ins, values), kind, "rn")


@FAMILY.form("neg", "abs")
def _sign(draft: Translation, ins: Instruction) -> None:
    kind = ins.names[-1]
    if has_row(draft) or PACKED.get(kind, kind) not in BITS:
        as_spelled(draft, ins)
        return
    bits = BITS[PACKED.get(kind, kind)]
    sign = (1 << bits - 1) | (1 << 2 * bits - 1 if kind in PACKED else 0)
    whole = 2 * bits if kind in PACKED else bits
    value = draft.source(ins.operands[1], f"b{whole}", kind == "f32")
    mask = draft.constant(sign if ins.names[0] == "neg" else ~sign & ((1 << whole) - 1))
    result = made(draft, "xor.b32" if ins.names[0] == "neg" else "and.b32", value, mask, wide=False)
    if "ftz" in ins.names and bits == 32:
        result = made(draft, "flushed.f32", result, wide=False)
    number, after = draft.target(ins.operands[0], f"b{whole}")
    draft.emit("mov.b32", [number, result])
    after()


# --------------------------------------------------------------------------- functions
@FAMILY.form("rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh")
def _function(draft: Translation, ins: Instruction) -> None:
    kind, mode, ftz, name = ins.names[-1], mode_of(ins), "ftz" in ins.names, ins.names[0]
    if has_row(draft):
        as_spelled(draft, ins)
        return
    values = carried(draft, ins.operands[1], kind, ftz)
    if mode != "rn":
        one = draft.constant(0x3FF0000000000000, wide=True)
        values = [made(draft, "odd.div", one, v) if name == "rcp" else made(draft, "odd.sqrt", v) for v in values]
    else:
        values = [made(draft, f"{name}.carried", v) for v in values]
        values = [made(draft, "canonical.f64", v) for v in values] if kind == "f64" else values
    deliver(draft, ins.operands[0], values, kind, mode, ftz)


# --------------------------------------------------------------------------- comparisons
def _holds(draft: Translation, ins: Instruction) -> int:
    """A predicate: the comparison of operands 1 and 2, without its combination."""
    kind = ins.names[-1]
    compare = UNSIGNED_NAMES.get(ins.names[1], ins.names[1])
    if kind in BITS and (kind in ("f16", "bf16") or "ftz" in ins.names):
        a, b = (carried(draft, o, kind, "ftz" in ins.names)[0] for o in ins.operands[1:3])
        return made(draft, f"setp.{compare}.f64", a, b, wide=False)
    floating = kind in ("f32", "f64")
    a, b = (draft.source(o, f"b{TYPES[kind].bits}", floating) for o in ins.operands[1:3])
    return made(draft, f"setp.{compare}.{kind}", a, b, wide=False)


@FAMILY.form("setp")
def _setp(draft: Translation, ins: Instruction) -> None:
    target = ins.operands[0]
    combine = next((n for n in ins.names[2:] if n in COMBINE), None)
    first = target.first if isinstance(target, Pair) else target
    holds = _holds(draft, ins)
    results = [(first, holds)]
    if isinstance(target, Pair):
        results.append((target.second, made(draft, "not.pred", holds, wide=False)))
    if combine:
        extra = draft.source(ins.operands[3], "p")
        results = [(o, made(draft, f"{combine}.pred", value, extra, wide=False)) for o, value in results]
    for operand, value in results:
        draft.emit("mov.pred", [draft.target(operand, "p")[0], value])


@FAMILY.form("set")
def _set(draft: Translation, ins: Instruction) -> None:
    """set.cmp.type: all ones, or 1.0, where the comparison holds; else zero."""
    combine = next((n for n in ins.names[2:] if n in COMBINE), None)
    holds = _holds(draft, ins)
    if combine:
        holds = made(draft, f"{combine}.pred", holds, draft.source(ins.operands[3], "p"), wide=False)
    yes = draft.constant(0x3F800000 if ins.names[-2] == "f32" else 0xFFFFFFFF)
    number, after = draft.target(ins.operands[0], "b32")
    draft.emit("selp.b32", [number, yes, draft.constant(0), holds])
    after()


@FAMILY.form("slct")
def _slct(draft: Translation, ins: Instruction) -> None:
    draft.by_row(f"slct.{TYPES[ins.names[1]].bits}.{ins.names[2]}", ins.operands, ins.names[1][0] == "f")


# --------------------------------------------------------------------------- conversions
@FAMILY.form("cvt")
def _cvt(draft: Translation, ins: Instruction) -> None:
    to, of = ins.names[-2], ins.names[-1]
    if has_row(draft):
        _by_its_row(draft, ins)
    elif to in PACKED:
        _to_pair(draft, ins)
    elif of in BITS and to in BITS:
        _floats(draft, ins)
    elif of in BITS:
        _float_to_integer(draft, ins)
    elif to in BITS:
        _integer_to_float(draft, ins)
    else:
        _integers(draft, ins)


def _by_its_row(draft: Translation, ins: Instruction) -> None:
    """A signed result is sign-extended into a wider register."""
    if ins.names[-2] != "s32":
        as_spelled(draft, ins)
        return
    _, spelled = draft.row(draft.name)
    value = draft.source(ins.operands[1], spelled.split()[1], ins.names[-1] in ("f32", "f64"))
    number, after = draft.target(ins.operands[0], "s32")
    draft.emit(draft.name, [number, value])
    after()


def _width(to: str) -> str:
    """The type for draft.target: s8 to s32 are sign-extended."""
    return f"{'s' if to[0] == 's' and TYPES[to].bits < 64 else 'b'}{TYPES[to].bits}"


def _to_pair(draft: Translation, ins: Instruction) -> None:
    """cvt.rn.bf16x2.f32 d, a, b: a is the upper half."""
    values = [carried(draft, o, "f32")[0] for o in (ins.operands[2], ins.operands[1])]
    deliver(draft, ins.operands[0], finished(draft, ins, values), ins.names[-2], mode_of(ins))


def _floats(draft: Translation, ins: Instruction) -> None:
    """Between formats; with .rni and its like, to a whole number of the same format."""
    to, of, ftz = ins.names[-2], ins.names[-1], "ftz" in ins.names
    values = carried(draft, ins.operands[1], of, ftz and of == "f32")
    whole = next((n for n in ins.names if n in WHOLE), None)
    if whole:
        values = [made(draft, f"{whole}.carried", v) for v in values]
    for name in ("sat", "relu"):
        if name in ins.names:
            values = [made(draft, f"{name}.carried", v) for v in values]
    deliver(draft, ins.operands[0], values, to, mode_of(ins), ftz and to == "f32")


def _float_to_integer(draft: Translation, ins: Instruction) -> None:
    to, of = ins.names[-2], ins.names[-1]
    (value,) = carried(draft, ins.operands[1], of, "ftz" in ins.names)
    value = made(draft, f"{next((n for n in ins.names if n in WHOLE), 'rzi')}.carried", value)
    name = f"whole.{to}" + (".f64" if of == "f64" and TYPES[to].bits < 64 else "")
    number, after = draft.target(ins.operands[0], _width(to))
    draft.emit(name, [number, value])
    after()


def _integer(draft: Translation, operand: Operand, of: str) -> tuple[int, str]:
    """(an integer in 32 or 64 bits of its own sign, such as "s32")."""
    bits = TYPES[of].bits
    if isinstance(operand, Immediate) or bits >= 32:
        return draft.source(operand, f"b{max(bits, 32)}"), f"{of[0]}{max(bits, 32)}"
    value = draft.source(operand, f"b{bits}")
    value = draft.resized(value, 32, bits) if bits < 32 else value
    value = made(draft, f"low.b{bits}", value, wide=False)
    return (made(draft, f"signed.b{bits}", value, wide=False) if of[0] == "s" else value), f"{of[0]}32"


def _integer_to_float(draft: Translation, ins: Instruction) -> None:
    to, of, mode = ins.names[-2], ins.names[-1], mode_of(ins)
    number, kind = _integer(draft, ins.operands[1], of)
    direct = f"cvt.{'rn' if kind[1:] == '32' and to == 'f64' else mode}.{to}.{kind}"
    if direct in draft.machine.rows:
        target, after = draft.target(ins.operands[0], f"b{BITS[to]}")
        draft.emit(direct, [target, number])
        after()
    else:
        deliver(draft, ins.operands[0], [made(draft, f"carry.{kind}", number)], to, mode)


def _integers(draft: Translation, ins: Instruction) -> None:
    """Widening keeps the source's sign; .sat saturates."""
    to, of = ins.names[-2], ins.names[-1]
    number, kind = _integer(draft, ins.operands[1], of)
    if "sat" in ins.names:
        number = _clipped(draft, number, kind, to, of)
    bits = TYPES[to].bits
    wide = kind[1:] == "64"
    if bits == 64 and not wide:
        number = made(draft, "wide.signed" if kind[0] == "s" else "wide", number)
    elif bits < 64 and wide:
        number = made(draft, "low.b32", number, wide=False)
    if bits < 32:
        number = made(draft, f"low.b{bits}", number, wide=False)
    target, after = draft.target(ins.operands[0], _width(to))
    draft.emit("mov.b64" if bits == 64 else "mov.b32", [target, number])
    after()


def _clipped(draft: Translation, number: int, kind: str, to: str, of: str) -> int:
    ends = []
    for name in (to, of):
        bits, signed = TYPES[name].bits, name[0] == "s"
        ends.append((-(1 << bits - 1) if signed else 0, (1 << bits - signed) - 1))
    low, high = max(e[0] for e in ends), min(e[1] for e in ends)
    wide, mask = kind[1:] == "64", (1 << int(kind[1:])) - 1
    number = made(draft, f"max.{kind}", number, draft.constant(low & mask, wide), wide=wide)
    return made(draft, f"min.{kind}", number, draft.constant(high & mask, wide), wide=wide)


# --------------------------------------------------------------------------- bits
@FAMILY.form("lop3")
def _lop3(draft: Translation, ins: Instruction) -> None:
    """lop3.op.b32 d|p, a, b, c, table, q also sets p to (d != 0) op q."""
    table, target = ins.operands[4], ins.operands[0]
    result = target.first if isinstance(target, Pair) else target
    record = draft.by_row("lop3.b32", [result, *ins.operands[1:4]])
    record.imm = table.bits if isinstance(table, Immediate) else 0
    if isinstance(target, Pair):
        value = record.writes[0]
        holds = made(draft, "setp.ne.b32", value, draft.constant(0), wide=False)
        combined = made(draft, f"{ins.names[1]}.pred", holds, draft.source(ins.operands[5], "p"), wide=False)
        draft.emit("mov.pred", [draft.target(target.second, "p")[0], combined])


@FAMILY.form("prmt")
def _prmt(draft: Translation, ins: Instruction) -> None:
    """prmt.b32{.mode} d, a, b, c."""
    if ins.names[-1] not in PLACES:
        draft.by_row("prmt.b32", ins.operands)
        return
    record = draft.by_row("prmt.mode", ins.operands)
    table = sum(int(place) << 16 * i + 4 * k for (i, k), place in np.ndenumerate(PLACES[ins.names[-1]]))
    record.imm = table - (1 << 64) if table >> 63 else table


@FAMILY.form("mad.lo.cc", "mad.hi.cc", "madc.lo", "madc.hi")
def _multiply_carry(draft: Translation, ins: Instruction) -> None:
    """Half of a product, plus c, plus the carry flag."""
    kind, high, takes = ins.names[-1], ins.names[1] == "hi", ins.names[0] == "madc"
    bits = TYPES[kind].bits
    a, b, c = (draft.source(o, f"b{bits}") for o in ins.operands[1:4])
    half = made(draft, f"mul.{'hi' if high else 'lo'}.{kind}", a, b, wide=bits == 64)
    flag = draft.program.carry()
    taken = draft.source(flag, "b32") if takes else draft.constant(0)
    carry = draft.target(flag, "b32")[0] if "cc" in ins.names else draft.fresh()
    number, after = draft.target(ins.operands[0], f"b{bits}")
    draft.emit(f"carried_add{bits}", [number, half, c, taken, carry])
    after()


@FAMILY.form("add.cc", "addc", "sub.cc", "subc")
def _carry(draft: Translation, ins: Instruction) -> None:
    """Words of a longer number, through the carry flag."""
    bits = TYPES[ins.names[-1]].bits
    a, b = (draft.source(o, f"b{bits}") for o in ins.operands[1:3])
    flag = draft.program.carry()
    taken = draft.source(flag, "b32") if ins.names[0] in ("addc", "subc") else draft.constant(0)
    carry = draft.target(flag, "b32")[0] if "cc" in ins.names else draft.fresh()
    number, after = draft.target(ins.operands[0], f"b{bits}")
    draft.emit(f"carried_{ins.names[0][:3]}{bits}", [number, a, b, taken, carry])
    after()
