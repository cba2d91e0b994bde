"""Broken versions of a Python function, made from its syntax tree: one small fault each.

Faults are of the kinds that hand-written backward passes have: a sign, a factor, a missing term, a lost last row,
`=` for `+=`, a wrong axis, a missing transpose, a mean for a sum, a flag ignored, a wrong saved tensor, a skipped
statement. This module knows Python and the names in `t`; suite.py chooses the functions and runs the check.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

LOST_ROW, LOST_COLUMN = "_without_last_row", "_without_last_column"  # put into a mutant's namespace
SETTLED = ("grain", "scratch")  # keywords that change the order of the computation, not its result

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Mod: ast.FloorDiv,
    ast.FloorDiv: ast.Mod,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
FUNCTIONS: Mapping[str, str] = {
    "add": "subtract",
    "subtract": "add",
    "multiply": "add",
    "divide": "multiply",
    "mean": "sum",
    "sum": "mean",
    "max": "min",
    "min": "max",
    "maximum": "minimum",
    "minimum": "maximum",
    "exp": "expm1",
    "log": "log1p",
    "tanh": "arctan",
    "sqrt": "square",
    "reciprocal": "negative",
    "zeros_like": "ones_like",
    "zeros": "ones",
}
ORDERED = ("subtract", "divide", "matmul", "where", "dot")  # functions whose first or last two arguments are no equals
REARRANGING = ("swapaxes", "transpose")


@dataclass(frozen=True)
class Site:
    """A node of a syntax tree, and where it hangs."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


@dataclass(frozen=True)
class Fault:
    """One broken version: `before` and `after` are the statement's text, `text` is all of the function.

    `defined` is the line of the function in its module, `line` the one of the fault.
    """

    function: str
    defined: int
    line: int
    before: str
    after: str
    text: str

    def put_into(self, module: ast.Module) -> ast.Module:
        """`module`, freshly parsed, with the broken function in the right one's place."""
        broken = ast.increment_lineno(ast.parse(self.text), self.defined - 1).body[0]
        for body in (module.body, *(c.body for c in module.body if isinstance(c, ast.ClassDef))):
            for index, node in enumerate(body):
                if isinstance(node, ast.FunctionDef) and (node.name, node.lineno) == (self.function, self.defined):
                    body[index] = broken
        return module


def faults(
    functions: list[ast.FunctionDef], tensors: Mapping[str, tuple[str, ...]], numbers: set[str]
) -> Iterator[Fault]:
    """Every fault in `functions`.

    tensors: name in `t` -> names that hold tensors of the same shape. numbers: names of the module's constants.
    """
    for function in functions:
        seen = {ast.unparse(function)}
        for statement, site in sites(function):
            before = headline(statement)
            for replacement in replacements(site, tensors, numbers):
                site.put(ast.fix_missing_locations(located(replacement, site.node)))
                whole = ast.unparse(function)
                if whole not in seen:
                    seen.add(whole)
                    after = headline(replacement if site.node is statement else statement)
                    line = getattr(site.node, "lineno", function.lineno)
                    yield Fault(function.name, function.lineno, line, before, after, whole)
                site.put(site.node)


def located(new: ast.AST, old: ast.AST) -> ast.AST:
    """`new` with the lines of `old`, so that errors point at the place."""
    return new if hasattr(new, "lineno") else ast.copy_location(new, old)


def headline(statement: ast.AST) -> str:
    """The first line of a statement; all of a simple one."""
    return ast.unparse(statement).splitlines()[0]


def sites(function: ast.FunctionDef) -> Iterator[tuple[ast.stmt, Site]]:
    """Every node inside a function with the statement it is in, docstring, arguments and settled keywords left out."""

    def walk(parent: ast.AST, statement: ast.stmt) -> Iterator[tuple[ast.stmt, Site]]:
        for field, value in ast.iter_fields(parent):
            if isinstance(parent, ast.keyword) and parent.arg in SETTLED:
                continue
            if isinstance(value, ast.arguments) or field in ("decorator_list", "returns", "ctx"):
                continue
            for index, node in enumerate(value) if isinstance(value, list) else ((None, value),):
                if not isinstance(node, ast.AST) or is_docstring(node):
                    continue
                within = node if isinstance(node, ast.stmt) else statement
                yield within, Site(node, parent, field, index)
                if not (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)):  # -1 is one number
                    yield from walk(node, within)

    yield from walk(function, function)


def is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def replacements(site: Site, tensors: Mapping[str, tuple[str, ...]], numbers: set[str]) -> Iterator[ast.AST]:
    """The wrong nodes that may replace a node."""
    node = site.node
    maker: Callable[[Any], Iterator[ast.AST]] | None = MAKERS.get(type(node))
    if maker is not None:
        yield from maker(node)
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield from of_tensor(node, tensors)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in numbers:
        yield scaled(node, 1.01)


def scaled(node: ast.expr, factor: float) -> ast.expr:
    return ast.BinOp(node, ast.Mult(), ast.Constant(factor))


def negative(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.USub(), node)


def call(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


# --- expressions -------------------------------------------------------------------------------------------------


def of_operation(node: ast.BinOp) -> Iterator[ast.AST]:
    """Another operator, swapped operands, a missing term or factor."""
    kind = OPERATORS.get(type(node.op))
    if kind is not None:
        yield ast.BinOp(node.left, kind(), node.right)
    if isinstance(node.op, ast.Sub | ast.MatMult | ast.Div):
        yield ast.BinOp(node.right, node.op, node.left)
    if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.BitAnd | ast.BitOr | ast.Pow):
        yield node.left
    if isinstance(node.op, ast.Add | ast.Mult | ast.Sub | ast.BitAnd | ast.BitOr):
        yield node.right


def of_unary(node: ast.UnaryOp) -> Iterator[ast.AST]:
    """A lost sign; an axis from the end that becomes the first."""
    yield node.operand
    if isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int):
        yield ast.Constant(0)


def of_constant(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        if node.value > 1:
            yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value * 1.01)
        yield ast.Constant(node.value * 2)


def of_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    kind = COMPARISONS.get(type(node.ops[0]))
    if kind is not None and len(node.ops) == 1:
        yield ast.Compare(node.left, [kind()], node.comparators)


def of_choice(node: ast.IfExp) -> Iterator[ast.AST]:
    yield node.body
    yield node.orelse


def of_junction(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    yield node.values[0]


def of_call(node: ast.Call) -> Iterator[ast.AST]:
    """Another function, swapped arguments, a missing transpose, fewer rows."""
    if not isinstance(node.func, ast.Attribute):
        return
    name, owner = node.func.attr, node.func.value
    if name in FUNCTIONS:
        yield ast.Call(ast.Attribute(owner, FUNCTIONS[name], ast.Load()), node.args, node.keywords)
    if name in ORDERED and len(node.args) >= 2:
        yield ast.Call(node.func, [*node.args[:-2], node.args[-1], node.args[-2]], node.keywords)
    if name in REARRANGING:
        yield owner
    if name == "rows" and node.args:
        shorter = ast.BinOp(node.args[0], ast.Sub(), ast.Constant(1))
        yield ast.Call(node.func, [shorter, *node.args[1:]], node.keywords)


def of_slice(node: ast.Slice) -> Iterator[ast.AST]:
    """Off by one at either end; an end forgotten."""
    if node.lower is not None:
        yield ast.Slice(ast.BinOp(node.lower, ast.Add(), ast.Constant(1)), node.upper, node.step)
        yield ast.Slice(None, node.upper, node.step)
    if node.upper is not None:
        yield ast.Slice(node.lower, ast.BinOp(node.upper, ast.Sub(), ast.Constant(1)), node.step)
        yield ast.Slice(node.lower, None, node.step)


def of_tensor(node: ast.Attribute, tensors: Mapping[str, tuple[str, ...]]) -> Iterator[ast.AST]:
    """A transpose lost or made up; another tensor of the same shape; a flag ignored."""
    if node.attr == "T" and not (isinstance(node.value, ast.Name) and node.value.id == "t"):
        yield node.value
    if isinstance(node.value, ast.Name) and node.value.id == "t":
        for other in tensors.get(node.attr, ()):
            yield ast.Attribute(node.value, other, ast.Load())
        if node.attr.startswith("add_d"):
            yield ast.Constant(False)
            yield ast.Constant(True)


# --- statements --------------------------------------------------------------------------------------------------


def of_expression_statement(node: ast.Expr) -> Iterator[ast.AST]:
    """A skipped statement; for `t.add(name, value)`, wrong values and a wrong way to add."""
    yield ast.Pass()
    call_node = node.value
    if not (isinstance(call_node, ast.Call) and isinstance(call_node.func, ast.Attribute)):
        return
    target = call_node.func
    if not (target.attr == "add" and isinstance(target.value, ast.Name) and target.value.id == "t"):
        return
    name, value = call_node.args
    for wrong in (
        negative(value),
        scaled(value, 0.5),
        scaled(value, 1.01),
        call(LOST_ROW, value),
        call(LOST_COLUMN, value),
    ):
        yield ast.Expr(ast.Call(target, [name, wrong], []))
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        gradient = ast.unparse(ast.Attribute(target.value, name.value, ast.Load()))
        source = ast.unparse(value)
        for operator in ("=", "+="):  # always overwrites; always adds
            statement = f"{gradient}[...] {operator} np.asarray({source}).reshape({gradient}.shape)"
            yield ast.parse(f"if {gradient} is not None: {statement}").body[0]


def of_assignment(node: ast.Assign) -> Iterator[ast.AST]:
    """`+=` for `=`, a sign, a factor, a skipped write; only where memory is written, not where a name is bound."""
    target = node.targets[0]
    if isinstance(target, ast.Subscript | ast.Attribute):
        yield ast.Pass()
        yield ast.AugAssign(target, ast.Add(), node.value)
        if not isinstance(node.value, ast.Constant):
            yield ast.Assign(node.targets, negative(node.value))
            yield ast.Assign(node.targets, scaled(node.value, 1.01))


def of_update(node: ast.AugAssign) -> Iterator[ast.AST]:
    """`=` for `+=`, another operator, a skipped update."""
    yield ast.Pass()
    kind = OPERATORS.get(type(node.op))
    if kind is not None:
        yield ast.AugAssign(node.target, kind(), node.value)
    target: Any = deepcopy(node.target)
    if isinstance(target, ast.Name):
        target = ast.Subscript(ast.Name(target.id, ast.Load()), ast.Constant(...), ast.Store())
    yield ast.Assign([target], node.value)


def of_branch(node: ast.If) -> Iterator[ast.AST]:
    """A condition that always or never holds."""
    yield ast.If(ast.Constant(True), node.body, node.orelse)
    yield ast.If(ast.Constant(False), node.body, node.orelse)


def of_loop(node: ast.For) -> Iterator[ast.AST]:
    """The last round, or all but the first, left out."""
    rounds = call("list", node.iter)
    for part in (ast.Slice(None, negative(ast.Constant(1))), ast.Slice(ast.Constant(1), None)):
        yield ast.For(node.target, ast.Subscript(rounds, part, ast.Load()), node.body, node.orelse)


MAKERS: dict[type[ast.AST], Callable[[Any], Iterator[ast.AST]]] = {
    ast.BinOp: of_operation,
    ast.UnaryOp: of_unary,
    ast.Constant: of_constant,
    ast.Compare: of_comparison,
    ast.IfExp: of_choice,
    ast.BoolOp: of_junction,
    ast.Call: of_call,
    ast.Slice: of_slice,
    ast.Expr: of_expression_statement,
    ast.Assign: of_assignment,
    ast.AugAssign: of_update,
    ast.If: of_branch,
    ast.For: of_loop,
}


# --- functions that the mutants call ------------------------------------------------------------------------------


def without_last_row(value: Any) -> Any:
    """`value` with zeros in its last row: a kernel that stops one row early."""
    lost = np.array(value)
    if lost.ndim:
        lost.reshape(-1, lost.shape[-1])[
            -1 if lost.ndim > 1 else slice(None), -1 if lost.ndim == 1 else slice(None)
        ] = 0
    return lost


def without_last_column(value: Any) -> Any:
    """`value` with zeros in its last column: a kernel whose tail is not a multiple of its block."""
    lost = np.array(value)
    if lost.ndim:
        lost[..., -1] = 0
    return lost


HELPERS: dict[str, Any] = {LOST_ROW: without_last_row, LOST_COLUMN: without_last_column}
