"""Every form of every scalar opcode against exact arithmetic: scalar_forms.py and the files beside it have the results.

Any number of values, of another seed, of the forms that a pattern finds:

    python tests/sim/test_sim_fuzz.py --values 4096 --seed 7 'cvt.*f64'
"""

from __future__ import annotations

import argparse
import functools
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the oracle lies beside this file

import scalar_comparisons  # noqa: F401  (fills the table of forms)
import scalar_floats  # noqa: F401  (the same)
from exact_numbers import CANONICAL, FORMATS, NAN, encode
from scalar_forms import ELSEWHERE, FAMILIES, FORMS, REFUSED, Form, forms, packed

import core.sim
from core.sim import PtxError
from core.sim.instructions.table import TABLE
from core.sim.native.toolchain import compiler
from core.testing.ptx import HEAD

VALUES = 256  # of each form, when the tests run
TOGETHER = 96  # forms in one kernel
NUMPY = {16: np.uint16, 32: np.uint32, 64: np.uint64}


def width_of(kind: str) -> int:
    """Bits of the register that holds an operand or a result."""
    if kind in ("pred", "shift", "shifts"):
        return 32
    element, count = packed(kind)
    return max(16, count * int(element.lstrip("bfus")))


# --------------------------------------------------------------------------- values
@functools.cache
def edges(kind: str) -> list[int]:
    """Bits at which a type changes its ways."""
    if kind in FORMATS:
        exponent, mantissa = FORMATS[kind]
        infinity, top = ((1 << exponent) - 1) << mantissa, 1 << exponent + mantissa
        near = [
            encode(kind, (0, m, e))
            for m, e in ((1, 0), (1, -1), (3, -1), (5, -1), (255, 0), (511, -1), (1, 15), (1, 31))
        ]
        ends = [0, 1, 2, (1 << mantissa) - 1, 1 << mantissa, (1 << mantissa) + 1, infinity - 1, infinity, infinity | 1]
        found = [
            *near,
            *ends,
            near[0] - 1,
            near[0] + 1,
            infinity | 1 << mantissa - 1,
            encode(kind, (0, 0x55555555, -32)),
        ]
        return found + [x | top for x in found]
    width = int(kind[1:])
    small = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 32767, 32768, 65535]
    half = 1 << width - 1
    return [*(x for x in small if x < 1 << width), half - 1, half, half + 1, 2 * half - 1, 2 * half - 2, 0x5555 % half]


def drawn(kind: str, count: int, chance: random.Random) -> list[int]:
    """Operands of a kind: a third of them edges, a fifth of the floats near 1."""
    if kind == "pred":
        return [chance.getrandbits(1) for _ in range(count)]
    if kind in ("shift", "shifts"):
        one = [
            chance.choice((chance.randrange(70), chance.randrange(256), chance.getrandbits(32))) for _ in range(count)
        ]
        return one if kind == "shift" else [x & 255 | chance.randrange(70) << 8 for x in one]
    element, lanes = packed(kind)
    if lanes > 1:
        parts = [drawn(element, count, chance) for _ in range(2)]
        return [low | high << width_of(element) for low, high in zip(*parts, strict=True)]
    width, found = width_of(kind) if kind in FORMATS else int(kind[1:]), []
    for _ in range(count):
        lot, bits = chance.random(), chance.getrandbits(width)
        if lot < 0.35:
            bits = chance.choice(edges(kind))
        elif lot < 0.55 and kind in FORMATS:
            exponent, mantissa = FORMATS[kind]
            field = (1 << exponent - 1) - 1 + chance.randrange(-6, 7)
            bits = bits & ~(((1 << exponent) - 1) << mantissa) | field << mantissa
        elif lot < 0.5:
            bits = chance.randrange(70)
        found.append(bits)
    return found


def operands(kinds: Sequence[str], count: int, seed: int) -> list[list[int]]:
    """For each operand its values. Now and then two are the same, or each other's negative, so that sums cancel."""
    chance = random.Random(f"{seed} {kinds}")
    found = [drawn(kind, count, chance) for kind in kinds]
    if len(kinds) > 1 and kinds[0] == kinds[1]:
        sign = 1 << width_of(kinds[0]) - 1
        for i in range(0, count, 9):
            found[1][i] = found[0][i] ^ (sign if i % 2 and packed(kinds[0])[0] in FORMATS else 0)
    return found


# --------------------------------------------------------------------------- kernels
def scalar_rows() -> dict[str, str]:
    return {n: row.forms for n, row in TABLE.rows.items() if n not in ELSEWHERE and not n.startswith(FAMILIES)}


@functools.cache
def grouped(pattern: str = "") -> dict[tuple[str, ...], list[Form]]:
    """All forms, by the kinds of their operands."""
    found: dict[tuple[str, ...], list[Form]] = defaultdict(list)
    for name, row in scalar_rows().items():
        for form in forms(name, row):
            if re.search(pattern, form.text):
                found[form.kinds].append(form)
    return found


def kernel(kinds: Sequence[str], group: Sequence[Form], count: int) -> str:
    """Each thread loads its operands and stores the 64 bits of every form's result."""
    loads, declared = "", ""
    for i, (name, kind) in enumerate(zip("abc", kinds, strict=False)):
        size = width_of(kind)
        declared += f".reg .b{size} %{name}; "
        loads += (
            f"ld.param.u64 %l0, [k_{i}]; mad.wide.u32 %l0, %t, {size // 8}, %l0; ld.global.b{size} %{name}, [%l0];\n"
        )
        if kind == "pred":
            loads += f".reg .pred %q{name}; setp.ne.u32 %q{name}, %{name}, 0;\n"
    body = ""
    for place, form in enumerate(group):
        size = {"pred": "p"}.get(form.result, str(width_of(form.result)))
        text = form.text.replace("%d", f"%d{size}").replace("%e", f"%e{size}")
        for name, kind in zip("abc", kinds, strict=False):
            text = text.replace(f"%{name}", f"%q{name}") if kind == "pred" else text
        wide = {"p": "selp.b64 %l1, 1, 0, %dp;", "64": "mov.b64 %l1, %d64;"}.get(
            size, f"cvt.u64.u{size} %l1, %d{size};"
        )
        body += f"{text} {wide} st.global.b64 [%l2+{place * count * 8}], %l1;\n"
    parameters = ", ".join(f".param .u64 k_{i}" for i in range(len(kinds) + 1))
    return f"""{HEAD}.visible .entry k({parameters}) {{
.reg .b64 %l<3>, %x<4>, %d64, %e64; .reg .b32 %t, %w<4>, %d32, %e32; .reg .b16 %h<4>, %d16; .reg .pred %p<2>, %dp;
{declared} mov.u32 %t, %tid.x; mov.u32 %w2, %ctaid.x; mad.lo.u32 %t, %w2, 256, %t;
{loads} ld.param.u64 %l2, [k_{len(kinds)}]; mad.wide.u32 %l2, %t, 8, %l2;
{body} ret; }}"""


def results(
    kinds: Sequence[str], group: Sequence[Form], values: Sequence[Sequence[int]], executor: str = "interpreter"
) -> np.ndarray:
    """[form, value]: the bits that an executor gives."""
    count = len(values[0])
    arrays = [np.array(v, NUMPY[width_of(k)]) for v, k in zip(values, kinds, strict=True)]
    out = np.zeros((len(group), count), np.uint64)
    text, blocks, threads = kernel(kinds, group, count), -(-count // 256), min(count, 256)
    core.sim.run(text, "k", blocks, threads, [*arrays, out], strict=False, executor=executor)
    return out


def agrees(form: Form, got: int, wanted: int) -> bool:
    """Whether bits are what the oracle says: the canonical NaN where the format has one, else any."""
    kind = form.result
    if wanted == NAN and kind in FORMATS:
        exponent, mantissa = FORMATS[kind]
        infinity = ((1 << exponent) - 1) << mantissa
        return (
            got == CANONICAL[kind]
            if kind in CANONICAL
            else got & infinity == infinity and got & (1 << mantissa) - 1 != 0
        )
    wanted &= (1 << (1 if kind == "pred" else width_of(kind))) - 1
    element, lanes = packed(kind)
    if not form.near or element not in FORMATS:
        return got == wanted
    size = width_of(element)
    return all(
        abs((got >> i * size) % (1 << size) - (wanted >> i * size) % (1 << size)) <= form.near for i in range(lanes)
    )


def mismatches(kinds: Sequence[str], group: Sequence[Form], count: int, seed: int) -> Iterator[tuple[Form, str]]:
    """The first value of each form for which simulator and oracle differ."""
    values = operands(kinds, count, seed)
    for start in range(0, len(group), TOGETHER):
        part = group[start : start + TOGETHER]
        for form, row in zip(part, results(kinds, part, values).tolist(), strict=True):
            for bits, got in zip(zip(*values, strict=True), row, strict=True):
                wanted = form.of(*bits)
                if wanted is not None and not agrees(form, got, wanted):
                    told = "any NaN" if wanted == NAN else hex(wanted & (1 << width_of(form.result)) - 1)
                    yield form, f"of {', '.join(map(hex, bits))} gives {got:#x}, exactly {told}"
                    break


# --------------------------------------------------------------------------- tests
def test_every_row_of_the_table_has_an_oracle_or_is_no_scalar_instruction():
    assert set(scalar_rows()) == set(FORMS)
    assert set(TABLE.rows) >= ELSEWHERE


@pytest.mark.parametrize("kinds", grouped(), ids="-".join)
def test_every_form_gives_what_exact_arithmetic_gives(kinds):
    wrong = [f"{form.text} {told}" for form, told in mismatches(kinds, grouped()[kinds], VALUES, 1)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
@pytest.mark.parametrize("kinds", grouped(), ids="-".join)
def test_every_form_has_the_same_bits_on_both_executors(kinds):
    group, values = grouped()[kinds], operands(kinds, VALUES, seed=8)
    for start in range(0, len(group), TOGETHER):
        part = group[start : start + TOGETHER]
        expected, found = (results(kinds, part, values, executor) for executor in ("interpreter", "native"))
        differ = [form.text for form, a, b in zip(part, expected, found, strict=True) if not np.array_equal(a, b)]
        assert differ == []


def test_there_are_as_many_forms_as_ever():
    assert sum(len(group) for group in grouped().values()) > 3000


@pytest.mark.parametrize("text", REFUSED)
def test_scalar_instructions_that_the_simulator_does_not_have_are_refused_by_name(text):
    with pytest.raises(PtxError, match=re.escape(text.split()[0].split(".")[0])):
        results(("b32",) * 3, [Form(text, ("b32",) * 3, "b32", lambda *bits: 0)], [[1]] * 3)


def main(words: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="", help="a regular expression that a form's text holds")
    parser.add_argument("--values", type=int, default=VALUES, help="of each form")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args(list(words))
    groups, wrong = grouped(told.pattern), 0
    for kinds, group in groups.items():
        for form, text in mismatches(kinds, group, told.values, told.seed):
            wrong += 1
            print(f"{form.text} {text}")
    print(f"{sum(map(len, groups.values()))} forms of {told.values} values: {wrong} of them wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
