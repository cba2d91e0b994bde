"""Formulas in NumPy, in the dtype of the tensors: f32 or f64."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from core.generated.formulas import COLUMN, Formulas

OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: np.power,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "tanh": np.tanh, "sin": np.sin,
    "cos": np.cos, "abs": np.abs, "sign": np.sign, "maximum": np.maximum, "minimum": np.minimum,
    "sigmoid": lambda x: 0.5 * (1 + np.tanh(0.5 * x)),
    "where": lambda condition, yes, no: np.where(condition != 0, yes, no),
    "sum": lambda x: np.sum(x, axis=-1, keepdims=True),
    "mean": lambda x: np.mean(x, axis=-1, keepdims=True),
    "max": lambda x: np.max(x, axis=-1, keepdims=True),
}  # fmt: skip


def computed(formulas: Formulas, results: Sequence[str], values_of: Mapping[str, Any]) -> dict[str, Any]:
    """The values of results from those of `values_of`: tensors (..., C) or (C,), numbers."""
    values = dict(values_of)
    dtype = next(value.dtype for value in values_of.values() if isinstance(value, np.ndarray))
    for name in formulas.closure(results):
        if name in formulas.lines:
            values[name] = evaluated(formulas.lines[name].expression, values, dtype.type)
    return {name: values[name] for name in results}


def evaluated(node: ast.expr, values: Mapping[str, Any], dtype: Any) -> Any:
    """An expression's value; comparisons are 1 or 0."""
    match node:
        case ast.Constant(value=number):
            return dtype(number)
        case ast.Name(id=name):
            value = values[name]
            return value if isinstance(value, np.ndarray) else dtype(value)
        case ast.UnaryOp(operand=inner):
            return -evaluated(inner, values, dtype)
        case ast.BinOp(left=left, op=kind, right=right):
            return OPERATORS[type(kind)](evaluated(left, values, dtype), evaluated(right, values, dtype))
        case ast.Compare(left=left, ops=[kind], comparators=[right]):
            holds = OPERATORS[type(kind)](evaluated(left, values, dtype), evaluated(right, values, dtype))
            return np.asarray(holds, dtype)
        case ast.Call(func=ast.Name(id=name), args=args):
            return FUNCTIONS[name](*(evaluated(part, values, dtype) for part in args))
    raise TypeError(ast.dump(node))


def forward(formulas: Formulas, t: Any) -> None:
    """Write the outputs."""
    names = [*formulas.tensors, *formulas.numbers, *filter(None, [formulas.last])]
    for name, value in computed(formulas, list(formulas.op.outputs), {n: getattr(t, n) for n in names}).items():
        getattr(t, name)[...] = value


def backward(formulas: Formulas, t: Any) -> None:
    """Write or add the gradients; those of parameters are summed over all rows."""
    names = [*formulas.reads, *formulas.above, *formulas.numbers, *filter(None, [formulas.last])]
    values_of = {name: getattr(t, name) for name in names}
    whole = next(value for name in formulas.above if (value := values_of[name]) is not None)
    values_of |= {
        name: np.zeros_like(whole) for name in formulas.above if values_of[name] is None
    }  # of an unused output
    wanted = [name for name in formulas.gradients if getattr(t, name) is not None]
    for name, value in computed(formulas, wanted, values_of).items():
        full = np.broadcast_to(value, whole.shape)
        column = formulas.kinds[name[1:]] == COLUMN
        t.add(name, full.reshape(-1, whole.shape[-1]).sum(0) if column else full)
