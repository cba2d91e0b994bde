"""Results of PTX's comparisons and selections, from the PTX ISA manual; see scalar_forms.py."""

from __future__ import annotations

from collections.abc import Callable

from exact_numbers import FORMATS, decode, flushed, order, signed
from scalar_forms import Form, maker, plain

# --------------------------------------------------------------------------- comparisons
COMPARE: dict[str, Callable[[int], bool]] = {
    "eq": lambda o: o == 0, "ne": lambda o: o != 0, "lt": lambda o: o < 0, "le": lambda o: o <= 0,
    "gt": lambda o: o > 0, "ge": lambda o: o >= 0,
}  # fmt: skip
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
COMBINE: dict[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


def comparison(word: str, kind: str, ftz: bool) -> Callable[[int, int], int] | None:
    """The comparison of two operands' bits; None for one that the type does not have."""
    if kind in FORMATS:
        if ftz and kind not in ("f32", "f16") or word in UNSIGNED:
            return None
        operators = {"num": lambda o: o is not None, "nan": lambda o: o is None}

        def test(a: int, b: int) -> int:
            ordering = order(flushed(kind, a, ftz), flushed(kind, b, ftz))
            if word in operators:
                return int(operators[word](ordering))
            return int(len(word) == 3) if ordering is None else int(COMPARE[word[:2]](ordering))

        return test
    allowed = {"b": ("eq", "ne"), "s": tuple(COMPARE), "u": (*COMPARE, *UNSIGNED)}[kind[0]]
    if ftz or word not in allowed:
        return None
    width, holds = int(kind[1:]), COMPARE[UNSIGNED.get(word, word)]
    read: Callable[[int], int] = (lambda x: signed(x, width)) if kind[0] == "s" else (lambda x: x)
    return lambda a, b: int(holds(read(a) - read(b)))


@maker("setp", "set")
def _compared(names: tuple[str, ...]) -> Form | None:
    kind, combine = names[-1], next((COMBINE[n] for n in names if n in COMBINE), None)
    test = comparison(names[1], kind, "ftz" in names)
    if test is None:
        return None
    kinds = (kind, kind, *(["pred"] if combine else []))
    more = ", %c" if combine else ""
    if names[0] == "set":
        yes = 0x3F800000 if names[-2] == "f32" else 0xFFFFFFFF

        def one(a: int, b: int, *c: int) -> int:
            return yes * (combine(test(a, b), *c) if combine else test(a, b))

        return Form(f"{'.'.join(names)} %d, %a, %b{more};", kinds, "b32", one)

    if kind in ("f16", "bf16"):  # no second result

        def single(a: int, b: int, *c: int) -> int:
            return combine(test(a, b), *c) if combine else test(a, b)

        return Form(f"{'.'.join(names)} %d, %a, %b{more};", kinds, "pred", single)

    def both(a: int, b: int, *c: int) -> int:
        first, second = test(a, b), 1 - test(a, b)
        return combine(first, *c) + 2 * combine(second, *c) if combine else first + 2 * second

    text = f"{'.'.join(names)} %p0|%p1, %a, %b{more}; selp.b32 %w0, 1, 0, %p0; selp.b32 %w1, 2, 0, %p1;"
    return Form(f"{text} or.b32 %d, %w0, %w1;", kinds, "b32", both)


@maker("selp")
def _select(names: tuple[str, ...]) -> Form:
    return plain(names, (names[-1], names[-1], "pred"), f"b{names[-1][1:]}", lambda a, b, c: a if c else b)


@maker("slct")
def _select_by_sign(names: tuple[str, ...]) -> Form:
    kind, by = names[1:]

    def at_least_zero(c: int) -> bool:
        if by == "s32":
            return signed(c, 32) >= 0
        ordering = order(decode("f32", c), (0, 0, 0))
        return ordering is not None and ordering >= 0

    return plain(names, (kind, kind, by), f"b{kind[1:]}", lambda a, b, c: a if at_least_zero(c) else b)
