"""Results of PTX's scalar instructions, from the PTX ISA manual: forms and integers; see scalar_comparisons.py too.

`forms(name, row)` spells out every form that a row of the simulator's table of opcodes allows, each with its operands
and a function from the operands' bits to the result's. A form that PTX does not have is left out. `FORMS` has a maker
for each scalar row, and `ELSEWHERE` names the rows that are not scalar.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from exact_numbers import CANONICAL, NAN, signed

from core.sim.instructions.opcodes import written_out


@dataclass(frozen=True)
class Form:
    """text: with %d for the result and %a, %b, %c for the operands; kinds: of the operands, see `drawn` in the test.

    of: the operands' bits -> the result's bits; NAN, or None where the manual leaves the result open. near: by how many
    units in the last place a result may differ.
    """

    text: str
    kinds: tuple[str, ...]
    result: str
    of: Callable[..., int | None]
    near: int = 0


Maker = Callable[[tuple[str, ...]], "Form | list[Form] | None"]
FORMS: dict[str, Maker] = {}


def maker(*rows: str) -> Callable[[Maker], Maker]:
    def register(make: Maker) -> Maker:
        FORMS.update(dict.fromkeys(rows, make))
        return make

    return register


def expanded(name: str, row: str) -> list[tuple[str, ...]]:
    """Every opcode, split at its dots, that a row of the table allows."""
    forms: dict[tuple[str, ...], None] = {}
    for form in written_out(row).split("|"):
        items = [item.rstrip("?").split("/") + [""] * item.endswith("?") for item in form.split()]
        for chosen in itertools.product(*items):
            forms[(*name.split("."), *(one.replace("::", ":") for one in chosen if one))] = None
    return list(forms)


def forms(name: str, row: str) -> Iterator[Form]:
    for names in expanded(name, row):
        made = FORMS[name](names)
        yield from made if isinstance(made, list) else [made] if made else []


def plain(
    names: tuple[str, ...], kinds: tuple[str, ...], result: str, of: Callable[..., int | None], near: int = 0
) -> Form:
    return Form(
        f"{'.'.join(names)} %d, {', '.join('%' + 'abc'[i] for i in range(len(kinds)))};", kinds, result, of, near
    )


def packed(kind: str) -> tuple[str, int]:
    """The element's kind, and how many lie in a register."""
    return (kind[:-2], 2) if kind.endswith("x2") else (kind, 1)


def by_element(kind: str, of: Callable[..., int | None]) -> Callable[..., int | None]:
    """A function of elements, over packed ones; NaN are canonical there."""
    element, count = packed(kind)
    if count == 1:
        return of
    width = 16 if element != "f32" else 32

    def over(*bits: int) -> int:
        parts = [of(*(b >> i * width & (1 << width) - 1 for b in bits)) for i in range(2)]
        return sum((CANONICAL[element] if p == NAN else p or 0) << i * width for i, p in enumerate(parts))

    return over


# --------------------------------------------------------------------------- integers
def _c_div(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INTEGERS: dict[str, tuple[int, Callable[..., int | None]]] = {  # operands; of w, and of them as the type has them
    "add": (2, lambda w, a, b: a + b),
    "sub": (2, lambda w, a, b: a - b),
    "mul.lo": (2, lambda w, a, b: a * b),
    "mul.hi": (2, lambda w, a, b: a * b >> w),
    "mad.lo": (3, lambda w, a, b, c: a * b + c),
    "mad.hi": (3, lambda w, a, b, c: (a * b >> w) + c),
    "sad": (3, lambda w, a, b, c: c + abs(a - b)),
    "div": (2, lambda w, a, b: _c_div(a, b) if b else None),
    "rem": (2, lambda w, a, b: a - _c_div(a, b) * b if b else None),
    "min": (2, lambda w, a, b: min(a, b)),
    "max": (2, lambda w, a, b: max(a, b)),
    "neg": (1, lambda w, a: -a),
    "abs": (1, lambda w, a: abs(a)),
    "and": (2, lambda w, a, b: a & b),
    "or": (2, lambda w, a, b: a | b),
    "xor": (2, lambda w, a, b: a ^ b),
    "not": (1, lambda w, a: ~a),
    "cnot": (1, lambda w, a: int(a == 0)),
    "brev": (1, lambda w, a: int(f"{a:0{w}b}"[::-1], 2)),
    "popc": (1, lambda w, a: a.bit_count()),
    "clz": (1, lambda w, a: w - a.bit_length()),
    "bfind": (1, lambda w, a: (~a if a < 0 else a).bit_length() - 1),
    "bfind.shiftamt": (1, lambda w, a: w - top if (top := (~a if a < 0 else a).bit_length()) else -1),
}
TO_32 = ("popc", "clz", "bfind", "bfind.shiftamt")


def integer(names: tuple[str, ...]) -> Form:
    kind = names[-1]
    if kind == "pred":
        bools: dict[str, Callable[..., int]] = {"not": lambda a: 1 - a}
        of = bools.get(names[0], lambda a, b: INTEGERS[names[0]][1](1, a, b))
        return plain(names, ("pred",) * INTEGERS[names[0]][0], "pred", of)
    element, lanes = packed(kind)
    width, row = int(element[1:]), ".".join(n for n in names[:-1] if n not in ("sat", "relu"))
    count, compute = INTEGERS[row]
    most = (1 << width - 1) - 1

    def result(*bits: int) -> int | None:
        value = compute(width, *(signed(b, width) if kind[0] == "s" else b for b in bits))
        if value is not None and "sat" in names:
            value = max(-most - 1, min(most, value))
        if value is not None and "relu" in names:
            value = max(0, value)
        return value if value is None or lanes == 1 else value & (1 << width) - 1

    result_kind = "b32" if row in TO_32 else f"b{width * lanes}"
    return plain(names, (kind,) * count, result_kind, by_element(kind, result))


for one in INTEGERS:
    FORMS[one] = integer


@maker("mul.wide", "mad.wide")
def _wide(names: tuple[str, ...]) -> Form:
    kind, width = names[-1], int(names[-1][1:])
    read: Callable[[int], int] = (lambda x: signed(x, width)) if kind[0] == "s" else (lambda x: x)
    if names[0] == "mul":
        return plain(names, (kind, kind), f"b{2 * width}", lambda a, b: read(a) * read(b))
    return plain(names, (kind, kind, f"b{2 * width}"), f"b{2 * width}", lambda a, b, c: read(a) * read(b) + c)


@maker("mul24.lo")
def _mul24(names: tuple[str, ...]) -> Form:
    low = (1 << 24) - 1
    of = (lambda a, b: signed(a, 24) * signed(b, 24)) if names[-1] == "s32" else (lambda a, b: (a & low) * (b & low))
    return plain(names, (names[-1],) * 2, "b32", of)


@maker("mul24.hi", "mad24.lo", "mad24.hi")
def _mad24(names: tuple[str, ...]) -> Form:
    read = (lambda x: signed(x, 24)) if names[-1] == "s32" else (lambda x: x & (1 << 24) - 1)
    by = 16 if names[1] == "hi" else 0
    if names[0] == "mul24":
        return plain(names, (names[-1],) * 2, "b32", lambda a, b: read(a) * read(b) >> by)
    return plain(names, (names[-1],) * 3, "b32", lambda a, b, c: (read(a) * read(b) >> by) + c)


@maker("bmsk")
def _bit_mask(names: tuple[str, ...]) -> Form:
    def of(at: int, width: int) -> int:
        if names[1] == "wrap":
            at, width = at & 31, width & 31
        every = sum(1 << i for i in range(at, 32))
        return every & ~sum(1 << i for i in range(at + width, 32))

    return plain(names, ("shift", "shift"), "b32", of)


@maker("szext")
def _extend(names: tuple[str, ...]) -> Form:
    def of(a: int, width: int) -> int:
        width = width & 31 if names[1] == "wrap" else min(width, 32)
        if not width:
            return 0
        return signed(a, width) if names[-1] == "s32" else a & (1 << width) - 1

    return plain(names, ("b32", "shift"), "b32", of)


@maker("dp2a")
def _dot2(names: tuple[str, ...]) -> Form:
    def part(x: int, i: int, width: int, kind: str) -> int:
        return signed(x >> width * i, width) if kind == "s32" else x >> width * i & (1 << width) - 1

    first = 2 * (names[1] == "hi")
    return plain(
        names,
        ("b32",) * 3,
        "b32",
        lambda a, b, c: c + sum(part(a, i, 16, names[2]) * part(b, first + i, 8, names[3]) for i in range(2)),
    )


@maker("shl", "shr")
def _shift(names: tuple[str, ...]) -> Form:
    width = int(names[-1][1:])
    if names[0] == "shl":
        return plain(names, (names[-1], "shift"), f"b{width}", lambda a, n: a << min(n, width))
    arithmetic = names[-1][0] == "s"
    return plain(
        names, (names[-1], "shift"), f"b{width}", lambda a, n: (signed(a, width) if arithmetic else a) >> min(n, width)
    )


@maker("shf")
def _funnel(names: tuple[str, ...]) -> Form:
    def of(a: int, b: int, n: int) -> int:
        n = n & 31 if names[2] == "wrap" else min(n, 32)
        return (b << 32 | a) << n >> 32 if names[1] == "l" else (b << 32 | a) >> n

    return plain(names, ("b32", "b32", "shift"), "b32", of)


@maker("bfe")
def _extract(names: tuple[str, ...]) -> Form:
    kind, width = names[-1], int(names[-1][1:])

    def of(a: int, at: int, count: int) -> int:
        at, count = at & 255, count & 255
        sign = a >> min(at + count - 1, width - 1) & 1 if kind[0] == "s" and count else 0
        return sum((a >> at + i & 1 if i < count and at + i < width else sign) << i for i in range(width))

    return plain(names, (kind, "shift", "shift"), f"b{width}", of)


@maker("bfi")
def _insert(names: tuple[str, ...]) -> Form:
    width = int(names[-1][1:])

    def of(a: int, b: int, both: int) -> int:
        at, count = both & 255, both >> 8 & 255
        field = ((1 << count) - 1 << at) & (1 << width) - 1
        return b & ~field | a << at & field

    text = f"shr.u32 %w0, %c, 8; {'.'.join(names)} %d, %a, %b, %c, %w0;"
    return Form(text, (f"b{width}", f"b{width}", "shifts"), f"b{width}", of)


@maker("prmt")
def _permute(names: tuple[str, ...]) -> Form:
    rows = {  # for each value of c's two low bits, bytes of b:a from the top one down, as the manual lists them
        "f4e": "3210 4321 5432 6543", "b4e": "5670 6701 7012 0123", "rc8": "0000 1111 2222 3333",
        "ecl": "3210 3211 3222 3333", "ecr": "0000 1110 2210 3210", "rc16": "1010 3232 1010 3232",
    }  # fmt: skip

    def by_mode(a: int, b: int, c: int) -> int:
        row = rows[names[-1]].split()[c & 3]
        return sum(((b << 32 | a) >> 8 * int(place) & 255) << 8 * i for i, place in enumerate(reversed(row)))

    if names[-1] in rows:
        return plain(names, ("b32",) * 3, "b32", by_mode)

    def of(a: int, b: int, c: int) -> int:
        octets = [(b << 32 | a) >> 8 * (c >> 4 * i & 7) & 255 for i in range(4)]
        return sum((255 * (o >> 7) if c >> 4 * i & 8 else o) << 8 * i for i, o in enumerate(octets))

    return plain(names, ("b32",) * 3, "b32", of)


@maker("lop3")
def _lop3(names: tuple[str, ...]) -> list[Form]:
    def of(table: int) -> Callable[..., int]:
        terms = [i for i in range(8) if table >> i & 1]
        return lambda a, b, c: sum(
            1 << i for i in range(32) if ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) in terms
        )

    if len(names) > 2:  # the second result chooses between the first and 77
        both = any if names[1] == "or" else all
        text = f"setp.lt.u32 %p1, %a, %b; {'.'.join(names)} %d|%p0, %a, %b, %c, 0x80, %p1; selp.b32 %d, %d, 77, %p0;"
        return [Form(text, ("b32",) * 3, "b32", lambda a, b, c: a & b & c if both((a & b & c != 0, a < b)) else 77)]
    tables = (0, 0x80, 0x96, 0xE8, 0xCA, 0x1B, 0x3C, 0xFE, 0xFF)
    return [Form(f"lop3.b32 %d, %a, %b, %c, {t};", ("b32",) * 3, "b32", of(t)) for t in tables]


@maker("add.cc", "sub.cc", "addc", "subc")
def _carried(names: tuple[str, ...]) -> Form:
    """The result, and the carry or borrow that is read back, as a sum: result + 3 for each."""
    kind, width = names[-1], int(names[-1][1:])
    less, takes, sets = names[0].startswith("sub"), names[0].endswith("c"), "cc" in names
    word = "sub" if less else "add"
    before = f"{word}.cc.u32 %w0, %w1, %w2; " if takes else ""
    after = f" {word}c.{kind} %e, {-1 if less else 0}, -1; mad.lo.{kind} %d, %e, 3, %d;" if sets else ""
    flag = "and.b32 %w1, %c, 1; " + ("mov.b32 %w2, 1; xor.b32 %w1, %w1, 1; " if less else "mov.b32 %w2, -1; ")

    def of(a: int, b: int, c: int) -> int:
        carry = c & 1 if takes else 0
        result = a - b - carry if less else a + b + carry
        out = int(not 0 <= result < 1 << width)
        return result + 3 * ((-out if less else out - 1) if sets else 0)

    text = f"{flag if takes else ''}{before}{'.'.join(names)} %d, %a, %b;{after}"
    return Form(text, (kind, kind, "b32"), f"b{width}", of)


@maker("mad.lo.cc", "mad.hi.cc", "madc.lo", "madc.hi")
def _multiplied_with_carry(names: tuple[str, ...]) -> Form:
    """With a carry of 1 where one is taken; the carry out is added to the result three times."""
    kind, width = names[-1], int(names[-1][1:])
    read: Callable[[int], int] = (lambda x: signed(x, width)) if kind[0] == "s" else (lambda x: x)
    takes, sets = names[0] == "madc", "cc" in names
    before = "mov.b32 %w1, 1; mov.b32 %w2, -1; add.cc.u32 %w0, %w1, %w2; " if takes else ""
    after = f" addc.{kind} %e, 0, 0; mad.lo.{kind} %d, %e, 3, %d;" if sets else ""

    def of(a: int, b: int, c: int) -> int:
        product = read(a) * read(b)
        half = (product >> width if names[1] == "hi" else product) & (1 << width) - 1
        total = half + c + takes
        return total + 3 * ((total >> width) if sets else 0)

    return Form(f"{before}{'.'.join(names)} %d, %a, %b, %c;{after}", (kind,) * 3, f"b{width}", of)


@maker("fns")
def _find_nth_set(names: tuple[str, ...]) -> Form:
    def of(mask: int, base: int, offset: int) -> int:
        base, nth = base & 31, signed(offset, 32) % 13 - 6
        up, down = range(base, 32), range(base, -1, -1)
        places = [i for i in ([base] if nth == 0 else up if nth > 0 else down) if mask >> i & 1]
        count = max(abs(nth), 1)
        return places[count - 1] if len(places) >= count else -1

    small = "and.b32 %w0, %b, 31; rem.s32 %w1, %c, 13; setp.lt.s32 %p0, %w1, 0;"
    small += " @%p0 add.s32 %w1, %w1, 13; sub.s32 %w1, %w1, 6;"
    return Form(f"{small} fns.b32 %d, %a, %w0, %w1;", ("b32",) * 3, "b32", of)


@maker("dp4a")
def _dot4(names: tuple[str, ...]) -> Form:
    def octet(x: int, i: int, kind: str) -> int:
        return signed(x >> 8 * i, 8) if kind == "s32" else x >> 8 * i & 255

    return plain(
        names,
        ("b32",) * 3,
        "b32",
        lambda a, b, c: c + sum(octet(a, i, names[1]) * octet(b, i, names[2]) for i in range(4)),
    )


@maker("mov")
def _mov(names: tuple[str, ...]) -> list[Form]:
    kind = names[-1]
    if kind == "pred":
        return [plain(names, ("pred",), "pred", lambda a: a)]
    forms, width = [plain(names, (kind,), f"b{kind[1:]}", lambda a: a)], int(kind[1:])
    if kind in ("b32", "b64"):
        half, part = width // 2, "h" if width == 32 else "w"
        text = f"mov.{kind} {{%{part}0, %{part}1}}, %a; mov.{kind} %d, {{%{part}1, %{part}0}};"
        forms.append(Form(text, (kind,), kind, lambda a: a >> half | a << half))
    return forms


# Rows that are not scalar: they touch memory, other lanes or barriers, or only hint.
ELSEWHERE = {
    "ld", "ldu", "st", "atom", "red", "cvta", "isspacep", "mapa", "getctarank", "prefetch", "prefetchu",
    "applypriority", "createpolicy", "fence", "membar", "griddepcontrol", "setmaxnreg", "pmevent", "nanosleep",
    "shfl", "vote", "activemask", "match", "redux", "elect", "mma", "ldmatrix", "stmatrix", "movmatrix",
    "wgmma.mma_async", "wgmma.wait_group", "wgmma.commit_group", "wgmma.fence", "barrier.cluster.arrive",
}  # fmt: skip
FAMILIES = ("mbarrier.", "cp.", "st.", "call", "mma.", "wmma.")  # of opcodes that are not scalar either

# Scalar instructions of PTX that the simulator does not have, and refuses by name.
REFUSED = """
cvt.rn.satfinite.e2m1x2.f32 %h0, %a, %b;
sub.u16x2 %d, %a, %b;
min.relu.u32 %d, %a, %b;
mad.hi.sat.s32 %d, %a, %b, %c;
vadd.u32.u32.u32.add %d, %a, %b, %c;
vabsdiff4.u32.u32.u32.add %d, %a, %b, %c;
cvt.pack.sat.s8.s32.b32 %d, %a, %b, %c;
setp.lt.f16x2 %p0|%p1, %a, %b;
add.rz.f64 %x0, %x1, %x1;
sub.rm.f64 %x0, %x1, %x1;
mul.rp.f64 %x0, %x1, %x1;
fma.rz.f64 %x0, %x1, %x1, %x1;
div.rm.f64 %x0, %x1, %x1;
sqrt.rp.f64 %x0, %x1;
rcp.rz.f64 %x0, %x1;
""".strip().splitlines()
