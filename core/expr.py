"""Arithmetic over dims: `3*C`, `pad(V, 128)`, `0.02 / sqrt(2*L)`.

An expression is parsed to an AST, and only the nodes listed here are evaluated; `eval` is never called. A size made by
`pad` remembers its size without padding, so that every output can be trimmed.
"""

from __future__ import annotations

import ast
import math
import operator
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
    """`size` rounded up to a multiple; remembers `size`, or what that was padded from, if it grew."""
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
FUNCTIONS: dict[str, Callable[..., Any]] = {"pad": pad, "cdiv": cdiv, "sqrt": math.sqrt, "min": min, "max": max}

LONGEST = 200  # characters: an expression is a size, not a program
LARGEST = 2**62  # a size beyond this is a mistake, and `9**9**9` must not hang


def evaluate(expression: str | Number, names: Mapping[str, Any], where: str = "") -> Number:
    """The value of `expression` over `names`. Whole floats become ints, so that `4 * C / 2` is a size.

    Raises BuildError naming `where`, the expression, and the nearest known name.
    """
    if not isinstance(expression, str):
        return expression
    prefix = f"{where}: " if where else ""

    def fail(why: str) -> BuildError:
        return BuildError(
            f"{prefix}cannot evaluate {expression[:LONGEST]!r}: {why}",
            hint=f"numbers, names, + - * / // % ** and {', '.join(FUNCTIONS)} are understood",
        )

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return number
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.Name(id=name):
                names_known = ", ".join(sorted(str(n) for n in names if n != "..."))
                raise fail(f'"{name}" is not known{did_you_mean(name, names)} (known: {names_known or "nothing"})')
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                a, b = value(left), value(right)
                if isinstance(op, ast.Pow) and (abs(a) > 2**31 or abs(b) > 62):
                    raise fail("a power this large is no size")
                return OPERATORS[type(op)](a, b)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](*[value(a) for a in args])
        raise fail(f"{ast.unparse(node)!r} is not allowed")

    if len(expression) > LONGEST:
        raise fail(f"longer than {LONGEST} characters")
    try:
        result = value(ast.parse(expression.strip(), mode="eval").body)
        if isinstance(result, complex) or not math.isfinite(result) or abs(result) > LARGEST:
            raise fail(f"the result is {result}")
    except (SyntaxError, RecursionError, MemoryError):
        raise fail("not an arithmetic expression") from None
    except (ZeroDivisionError, ValueError, TypeError, OverflowError) as error:
        raise fail(str(error)) from None
    if isinstance(result, float) and result.is_integer():
        return int(result)
    return result  # type: ignore[no-any-return]
