"""Arithmetic over dims: `3*C`, `pad(V, 128)`, `0.02 / sqrt(2*L)`, `1024 if i % 2 else 0`, `windows[i]`.

An expression is parsed to an AST, and only the nodes listed here are evaluated; `eval` is never called. A comparison is
1 or 0. A size made by `pad` remembers its size without padding, so that every output can be trimmed.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import BuildError, did_you_mean

Number = int | float


class Padded(int):
    """A size that was rounded up; `unpadded` is the size that carries meaning. Arithmetic on it gives plain ints."""

    unpadded: int

    def __new__(cls, size: int, unpadded: int) -> Padded:
        self = super().__new__(cls, size)
        self.unpadded = unpadded
        return self

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.unpadded


def unpadded(size: int) -> int:
    """The meaningful part of a size: `V` of `pad(V, 128)`, any other size itself."""
    return size.unpadded if isinstance(size, Padded) else size


def trim(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without padding."""
    return tuple(unpadded(n) for n in shape)


def described(shape: tuple[int, ...]) -> str:
    """`(50304, 768)`, with the meaningful part where it is padded."""
    plain, meant = tuple(int(n) for n in shape), trim(shape)
    return str(plain) if plain == meant else f"{plain} padded from {meant}"


def cdiv(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def pad(size: int, multiple: int) -> int:
    """`size` rounded up to a multiple; remembers `size`, or its own size before padding, if it grew."""
    if size != int(size) or multiple != int(multiple) or multiple < 1:
        raise ValueError(f"pad({size}, {multiple}) needs whole numbers, the second at least 1")
    size = size if isinstance(size, int) else int(size)  # `4*C/2` is a float on the way
    up = cdiv(size, int(multiple)) * int(multiple)
    return Padded(up, unpadded(size)) if up != size else size


OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "pad": pad,
    "cdiv": cdiv,
    "sqrt": math.sqrt,
    "log": math.log,
    "min": min,
    "max": max,
}

LONGEST = 200  # characters: an expression is a size, not a program
LARGEST = 2**62  # a size beyond this is a mistake, and `9**9**9` must not hang
MOST_ELEMENTS = 10_000  # of a list
UNDERSTOOD = ", ".join(
    ("numbers", "names", "+ - * / // % **", "comparisons", "and", "or", "not", "a if b else c", "list[i]", *FUNCTIONS)
)


class _Refused(Exception):
    """The reason why an expression has no value."""


def evaluate(expression: str | Number, names: Mapping[str, Any], where: str = "") -> Number:
    """The value of `expression` over `names`. Whole floats become ints, so that `4 * C / 2` is a size.

    Raises BuildError naming `where`, the expression, and the nearest known name.
    """
    result = evaluate_any(expression, names, where)
    if isinstance(result, tuple):
        raise BuildError(
            f"{where}{': ' if where else ''}{expression!r:.{LONGEST}} is a list of {len(result)}; expected a number",
            hint="list[i] is one of its elements",
        )
    return result


def evaluate_any(expression: str | Number, names: Mapping[str, Any], where: str = "") -> Number | tuple[Number, ...]:
    """Like `evaluate`; the value may be a list, as of `[i % 2 for i in range(L)]` or the name of one: a tuple."""
    if not isinstance(expression, str):
        return expression
    try:
        if len(expression) > LONGEST:
            raise _Refused(f"longer than {LONGEST} characters")
        result = _value(ast.parse(expression.strip(), mode="eval").body, names)
        return tuple(_number(element) for element in result) if isinstance(result, tuple) else _number(result)
    except (SyntaxError, RecursionError, MemoryError):
        why = "not an arithmetic expression"
    except (_Refused, ZeroDivisionError, ValueError, TypeError, OverflowError) as error:
        why = str(error)
    raise BuildError(
        f"{where}{': ' if where else ''}cannot evaluate {expression[:LONGEST]!r}: {why}",
        hint=f"{UNDERSTOOD} are understood",
    )


def _number(result: Any) -> Number:
    if not isinstance(result, int | float) or not math.isfinite(result) or abs(result) > LARGEST:
        raise _Refused(f"the result is {result}")
    if isinstance(result, bool) or (isinstance(result, float) and result.is_integer()):
        return int(result)
    return result


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Name(id=name):
            names_known = ", ".join(sorted(str(n) for n in names if n != "..."))
            raise _Refused(f'"{name}" is not known{did_you_mean(name, names)} (known: {names_known or "nothing"})')
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return int(not _value(operand, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            a, b = _value(left, names), _value(right, names)
            if isinstance(op, ast.Pow) and (abs(a) > 2**31 or abs(b) > 62):
                raise _Refused("the power is too large for a size")
            return OPERATORS[type(op)](a, b)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in COMPARISONS for op in ops):
            values = [_value(part, names) for part in (left, *others)]
            return int(all(COMPARISONS[type(op)](*values[n : n + 2]) for n, op in enumerate(ops)))
        case ast.BoolOp(op=op, values=parts):
            every = isinstance(op, ast.And)  # the parts after the first that decides are not evaluated
            return int((all if every else any)(_value(part, names) for part in parts))
        case ast.IfExp(test=test, body=body, orelse=other):
            return _value(body if _value(test, names) else other, names)
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return _element(name, _value(ast.Name(name), names), _value(index, names))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*[_value(a, names) for a in args])
        case ast.ListComp(elt=element, generators=[ast.comprehension() as each]):
            return _listed(node, element, each, names)
    raise _Refused(f"{ast.unparse(node)!r} is not allowed")


def _element(name: str, values: Any, index: Any) -> Any:
    """values[index]; an index below 0 is a mistake."""
    if not isinstance(values, tuple):
        raise _Refused(f'"{name}" is {values}, which is not a list')
    if not isinstance(index, int) or not 0 <= index < len(values):
        raise _Refused(f'"{name}" has {len(values)} elements, 0 to {len(values) - 1}, and the index is {index}')
    return values[index]


def _listed(node: ast.expr, element: ast.expr, each: ast.comprehension, names: Mapping[str, Any]) -> tuple[Any, ...]:
    """`[f(i) for i in range(L)]`"""
    match each:
        case ast.comprehension(
            target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=[most], keywords=[]), ifs=[]
        ):
            count = _value(most, names)
            if not isinstance(count, int) or not 0 <= count <= MOST_ELEMENTS:
                raise _Refused(f"range({count}) needs a whole number from 0 to {MOST_ELEMENTS:,}")
            return tuple(_value(element, ChainMap({name: i}, dict(names))) for i in range(count))
    raise _Refused(f"{ast.unparse(node)!r} is not of the form [f(i) for i in range(n)]")


_FIELD = re.compile(r"\{([^{}]*)\}")


def fill(template: str, names: Mapping[str, Any], where: str = "") -> str:
    """`h.{i - 1}.v` with the value of each expression in its place: `h.2.v`. BuildError for a negative one."""

    def number(match: re.Match[str]) -> str:
        value = evaluate(match[1], names, where)
        if not isinstance(value, int) or value < 0:
            raise BuildError(f"{where}{': ' if where else ''}{template!r}: {match[0]} is {value}; expected 0 or more")
        return str(int(value))

    return _FIELD.sub(number, template)
