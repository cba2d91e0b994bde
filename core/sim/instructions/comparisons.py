"""Comparisons and selections, of integers and floats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.instructions.float_formats import readable
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, bits_reader, need, reader, writer
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES, UNSIGNED, Array
from core.sim.ptx.syntax import Instruction, Pair
from core.sim.resident import Group

FAMILY = Family(pure=True)
opcode = FAMILY.opcode
Compute = Callable[..., Array]

COMPARE: dict[str, Compute] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
COMBINE: dict[str, Compute] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def comparison(name: str, floating: bool) -> Compute:
    """A comparison by its PTX name; the unordered ones (equ, ltu, ...) also hold when an operand is NaN."""
    if name == "num":
        return lambda a, b: ~(np.isnan(a) | np.isnan(b))
    if name == "nan":
        return lambda a, b: np.isnan(a) | np.isnan(b)
    if floating and name.endswith("u") and name not in COMPARE:
        ordered = COMPARE[name[:-1]]
        return lambda a, b: ordered(a, b) | np.isnan(a) | np.isnan(b)
    if floating and name == "ne":
        return lambda a, b: (a < b) | (a > b)
    return COMPARE[name]


def _compared(results: str) -> str:
    """The forms of a comparison of each type; `results` precede the type, of f16 and bf16 no f32."""
    whole = results.replace("/f32", "")
    return " | ".join((
        f"$compare $logical? {results} $int", f"$compare_unsigned $logical? {results} u16/u32/u64",
        f"eq/ne $logical? {results} $bits", f"$compare_float $logical? ftz? {results} f32",
        f"$compare_float $logical? {results} f64", f"$compare_float $logical? ftz? {whole} f16",
        f"$compare_float $logical? {whole} bf16",
    ))  # fmt: skip


@opcode("setp", _compared(""))
@opcode("set", _compared("u32/s32/f32"))
def _setp(program: Program, ins: Instruction) -> Step:
    names = [n for n in ins.names if n != "ftz"]
    combine = next((COMBINE[n] for n in names if n in COMBINE), None)
    compare = comparison(names[1], names[-1].startswith(("f", "bf")))
    a, b = (readable(program, o, names[-1], "ftz" in ins.names) for o in ins.operands[1:3])
    extra = bits_reader(program, ins.operands[3], np.dtype(np.bool_)) if combine else None
    target = ins.operands[0]
    both = isinstance(target, Pair)
    write = writer(program, target.first if isinstance(target, Pair) else target)
    other = writer(program, target.second) if isinstance(target, Pair) else None
    need(ins, combine is not None or len(ins.operands) == 3)
    result = TYPES[names[-2]] if ins.names[0] == "set" else None

    def test(g: Group) -> None:
        x, y = a(g), b(g)
        holds = compare(x, y)
        first = combine(holds, extra(g)) if combine is not None and extra is not None else holds
        if both and other is not None:
            second = combine(~holds, extra(g)) if combine is not None and extra is not None else ~holds
            write(g, first)
            other(g, second)
        elif result is None:
            write(g, first)
        elif result.kind == "f":
            write(g, first.astype(result.numpy))
        else:
            write(g, np.where(first, ~UNSIGNED[result.bits].type(0), UNSIGNED[result.bits].type(0)))

    return test


@opcode("selp", "$plain")
def _selp(program: Program, ins: Instruction) -> Step:
    kind = UNSIGNED[TYPES[ins.names[-1]].bits]
    a, b = (bits_reader(program, o, kind) for o in ins.operands[1:3])
    chosen, write = bits_reader(program, ins.operands[3], np.dtype(np.bool_)), writer(program, ins.operands[0])

    def select(g: Group) -> None:
        c = chosen(g)
        if c.size == 1:
            write(g, (a(g) if c[0] else b(g)).copy())
        else:
            write(g, np.where(c, a(g), b(g)))

    return select


@opcode("slct", "$plain s32/f32")
def _slct(program: Program, ins: Instruction) -> Step:
    """slct d, a, b, c: a where c >= 0, else b."""
    kind = UNSIGNED[TYPES[ins.names[-2]].bits]
    a, b = (bits_reader(program, o, kind) for o in ins.operands[1:3])
    c, write = reader(program, ins.operands[3], TYPES[ins.names[-1]]), writer(program, ins.operands[0])
    return lambda g: write(g, np.where(c(g) >= 0, a(g), b(g)))
