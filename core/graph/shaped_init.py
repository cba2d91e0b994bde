"""Initial values that depend on a parameter's shape: orthogonal matrices, and an expression over an element's index.

`index(EXPR)` is arithmetic over `row` and `column`, an element's index in the first and in the last dim, both from 0:
Mamba's A_log is "index(log(column + 1))". Only the nodes of the tree that are listed here are evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from core.errors import BuildError, did_you_mean
from core.expr import LONGEST, OPERATORS, trim
from core.graph.types import Parameter

Array = np.ndarray[Any, np.dtype[Any]]
INDICES = ("row", "column")
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log": np.log, "exp": np.exp, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "abs": np.abs,
    "min": np.minimum, "max": np.maximum,
}  # fmt: skip


def settle_index(expression: str, names: Mapping[str, Any], where: str) -> str:
    """The expression with its dims as numbers. BuildError for one that is not arithmetic over them and the indices."""

    def fail(why: str) -> BuildError:
        return BuildError(
            f"{where}: cannot evaluate index({expression[:LONGEST]}): {why}",
            hint=f"numbers, dims, row, column, + - * / // % ** and {', '.join(FUNCTIONS)} are understood",
        )

    def checked(node: ast.expr) -> ast.expr:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return node
            case ast.Name(id=name) if name in INDICES:
                return node
            case ast.Name(id=name) if isinstance(names.get(name), int | float):
                return ast.Constant(float(names[name]) if isinstance(names[name], float) else int(names[name]))
            case ast.Name(id=name):
                raise fail(f'"{name}" is not known{did_you_mean(name, [*INDICES, *map(str, names)])}')
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return ast.UnaryOp(ast.USub(), checked(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return ast.BinOp(checked(left), op, checked(right))
            case ast.Call(func=ast.Name(id=name) as function, args=args, keywords=[]) if name in FUNCTIONS:
                if len(args) != 1 + (name in ("min", "max")):
                    raise fail(f"{name} has {len(args)} arguments")
                return ast.Call(function, [checked(a) for a in args], [])
        raise fail(f"{ast.unparse(node)!r} is not allowed")

    if len(expression) > LONGEST:
        raise fail(f"longer than {LONGEST} characters")
    try:
        return ast.unparse(checked(ast.parse(expression.strip(), mode="eval").body))
    except (SyntaxError, RecursionError, MemoryError):
        raise fail("not an arithmetic expression") from None


def by_index(parameter: Parameter, expression: str) -> Array:
    """Each element's value, f64, in the parameter's shape without padding. BuildError for one that is not finite."""
    shape = trim(parameter.shape)
    sizes = [int(n) for n in shape]
    row = np.arange(sizes[0], dtype=np.float64).reshape(-1, *[1] * (len(sizes) - 1)) if sizes else np.zeros(())
    names = {"row": row, "column": np.arange(sizes[-1], dtype=np.float64) if sizes else row}

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return np.float64(number)
            case ast.Name(id=name):
                return names[name]
            case ast.UnaryOp(operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=args):
                return FUNCTIONS[name](*map(value, args))
        raise BuildError(f"{parameter.name}: init index({expression}) is not an arithmetic expression")

    with np.errstate(all="ignore"):
        values = np.broadcast_to(value(ast.parse(expression, mode="eval").body), shape)
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise BuildError(
            f"{parameter.name}: init index({expression}) is {values[place]} at {place}",
            hint="row and column begin at 0: log(column + 1)",
        )
    return values


def orthogonal(shape: tuple[int, ...], gain: float, stream: np.random.Generator) -> Array:
    """Matrices over the last two dims, f64: rows, or columns where they are fewer, of length `gain` and at right angles
    (Saxe et al., arXiv:1312.6120)."""
    rows, columns = shape[-2:]
    drawn = stream.standard_normal((*shape[:-2], max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q *= np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]  # else the draw is not uniform over them
    return gain * (q if rows >= columns else np.swapaxes(q, -1, -2))
