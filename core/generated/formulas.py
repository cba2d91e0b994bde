"""The formulas of an op, read: names, kinds of values, dependencies. BuildError for formulas outside of the language.

A formula is a line `name = expression` in Python's notation. Names are the op's inputs, parameters, attributes, the
last dim, `dy` for the gradient of an output y, and names of lines before. Each output and each gradient `dx` has one
line; other lines are in between. The language has numbers, + - * / **, comparisons (1 where true, else 0), the
functions of FUNCTIONS and, over the last dim, those of REDUCTIONS.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from core.errors import BuildError, did_you_mean
from core.op import Op

FUNCTIONS = {"exp": 1, "log": 1, "sqrt": 1, "rsqrt": 1, "tanh": 1, "sigmoid": 1, "sin": 1, "cos": 1, "abs": 1,
             "sign": 1, "maximum": 2, "minimum": 2, "where": 3}  # fmt: skip
REDUCTIONS = ("sum", "mean", "max")
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
RESERVED = {"float", "double", "int", "char", "bool", "short", "long", "auto", "const", "void", "this", "new",
            "delete", "struct", "union", "enum", "switch", "case", "do", "goto", "static", "elem",
            "bf16", "fp16", "load", "store"}  # fmt: skip
NUMBER, ROW, COLUMN, ELEMENT = "number", "row", "column", "element"  # how many values: 1, rows, C, rows * C


@dataclass(frozen=True)
class Line:
    """`name = expression`, with the text as it was written."""

    name: str
    expression: ast.expr
    text: str


class Formulas:
    """The formulas of an op. Raises BuildError, naming the op's place, where a line cannot be read or is missing."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.where = f'{op.where}: formulas of op "{op.name}"'
        self.last = self._last_dim()
        self.tensors = [*op.inputs, *op.params]
        self.lines: dict[str, Line] = {}
        self.kinds: dict[str, str] = self._common_kinds()
        for text in filter(None, (raw.partition("#")[0].strip() for raw in op.formulas.splitlines())):
            self._read(text)
        results = [*op.outputs, *(f"d{name}" for name in self.tensors)]
        for name in results:
            if name not in self.lines:
                raise self._error(f"no line defines {name}", f"write `{name} = ...`")
        for name in self.lines:
            if name not in results and not any(name in self._names(line) for line in self.lines.values()):
                raise self._error(f"{name} is used by no line", "remove it")
        for output in op.outputs:
            if wrong := [name for name in self.closure([output]) if name in self.above]:
                raise self._error(f"{output} depends on the gradient {wrong[0]}")

    def _error(self, problem: str, hint: str = "") -> BuildError:
        return BuildError(f"{self.where}: {problem}", hint=hint)

    @property
    def above(self) -> list[str]:
        """The gradients of the outputs: `dy` of each output y."""
        return [f"d{name}" for name in self.op.outputs]

    def _last_dim(self) -> str:
        """The name of the last dim of inputs and outputs; "" where they are elementwise, `...` alone."""
        op = self.op
        tails: dict[tuple[str, ...], str] = {}
        for name, slot in (*op.inputs.items(), *op.outputs.items()):
            if not slot.pattern.leading or len(slot.pattern.tokens) > 1 or slot.optional or slot.pattern.dtype:
                raise self._error(
                    f'{name} is "{slot.pattern.text}"',
                    'tensors with formulas are all "..." or all "... C", none optional',
                )
            tails.setdefault(slot.pattern.tokens, name)
        if len(tails) != 1:
            raise self._error(f"{' and '.join(tails.values())} differ in shape", 'all are "..." or all are "... C"')
        (tokens,) = tails
        for name, pattern in op.param_patterns.items():
            if pattern.tokens != tokens or not tokens or op.params[name].optional:
                raise self._error(f'the parameter {name} is "{pattern.text}"', "a parameter has the last dim alone")
        return tokens[0] if tokens else ""

    def _common_kinds(self) -> dict[str, str]:
        """The kinds of the names that every line may use."""
        op = self.op
        numbers = [name for name, value in op.attrs.items() if name not in op.params and self._numeric(value)]
        return {
            **dict.fromkeys(op.inputs, ELEMENT),
            **dict.fromkeys(op.params, COLUMN),
            **dict.fromkeys(self.above, ELEMENT),
            **dict.fromkeys(numbers, NUMBER),
            **({self.last: NUMBER} if self.last else {}),
        }

    @staticmethod
    def _numeric(default: object) -> bool:
        return default in (int, float) or (isinstance(default, int | float) and not isinstance(default, bool))

    def _read(self, text: str) -> None:
        try:
            (statement,) = ast.parse(text).body
        except (SyntaxError, ValueError):
            raise self._error(f"cannot read `{text}`", "expected `name = expression`") from None
        target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
        if not isinstance(statement, ast.Assign) or not isinstance(target, ast.Name):
            raise self._error(f"cannot read `{text}`", "expected `name = expression`")
        name = target.id
        if name in self.kinds or name in FUNCTIONS or name in REDUCTIONS or name in RESERVED or name.endswith("_"):
            raise self._error(f"`{text}`: {name} has a meaning already", "choose another name, without _ at its end")
        kind = self._kind(statement.value, text)
        if name.startswith("d") and name[1:] in self.op.params and kind in (ROW, NUMBER):
            raise self._error(f"`{text}`: {name} is one number a row; the gradient of a parameter has the last dim")
        self.kinds[name] = ELEMENT if name in self.op.outputs else kind
        self.lines[name] = Line(name, statement.value, text)

    def _kind(self, node: ast.expr, text: str) -> str:
        match node:
            case ast.Constant(value=bool() | str() | bytes() | None):
                raise self._error(f"`{text}`: {node.value!r} is not a number")
            case ast.Constant(value=int() | float()):
                return NUMBER
            case ast.Name(id=name):
                if name not in self.kinds:
                    raise self._error(
                        f'`{text}`: "{name}" is not known here{did_you_mean(name, self.kinds)}',
                        f"known: {', '.join(self.kinds)}",
                    )
                return self.kinds[name]
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return self._kind(inner, text)
            case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, OPERATORS):
                return joined(self._kind(part, text) for part in (left, right))
            case ast.Compare(left=left, ops=[operator], comparators=[right]) if isinstance(operator, COMPARISONS):
                return joined(self._kind(part, text) for part in (left, right))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._called(name, args, text)
        raise self._error(
            f"`{text}`: `{ast.unparse(node)}` is not in the language",
            f"numbers, names, + - * / **, comparisons, {', '.join((*FUNCTIONS, *REDUCTIONS))}",
        )

    def _called(self, name: str, args: list[ast.expr], text: str) -> str:
        arity = {**FUNCTIONS, **dict.fromkeys(REDUCTIONS, 1)}
        if name not in arity:
            raise self._error(
                f'`{text}`: no function "{name}"{did_you_mean(name, arity)}', f"known: {', '.join(arity)}"
            )
        if len(args) != arity[name]:
            raise self._error(f"`{text}`: {name} takes {arity[name]} values, got {len(args)}")
        kinds = [self._kind(part, text) for part in args]
        if name in FUNCTIONS:
            return joined(kinds)
        if not self.last:
            raise self._error(
                f"`{text}`: {name} is over the last dim, and this op has none", 'declare tensors as "... C"'
            )
        if kinds[0] in (NUMBER, ROW):
            raise self._error(f"`{text}`: {name} of one number a row", "reductions are over the last dim")
        return ROW

    def _names(self, line: Line) -> list[str]:
        return [node.id for node in ast.walk(line.expression) if isinstance(node, ast.Name)]

    def closure(self, results: Iterable[str]) -> list[str]:
        """All names that results follow from, themselves included, in an order in which each may be computed."""
        done: dict[str, None] = {}

        def visit(name: str) -> None:
            if name in done or name in FUNCTIONS or name in REDUCTIONS:
                return
            for inner in self._names(self.lines[name]) if name in self.lines else ():
                visit(inner)
            done[name] = None

        for name in results:
            visit(name)
        return list(done)

    def made_of(self, result: str) -> str:
        """The tensors that an element of a result follows from, as a line of `Reference.made_of`: those that a
        reduction takes are whole in the last dim."""
        whole: dict[str, bool] = {}

        def visit(node: ast.expr, reduced: bool) -> None:
            match node:
                case ast.Name(id=name) if name in self.lines:
                    visit(self.lines[name].expression, reduced)
                case ast.Name(id=name) if name in self.tensors or name in self.above:
                    whole[name] = whole.get(name, False) or reduced
                case ast.Call(func=ast.Name(id=function), args=args):
                    for part in args:
                        visit(part, reduced or function in REDUCTIONS)
                case _:
                    for child in ast.iter_child_nodes(node):
                        if isinstance(child, ast.expr):
                            visit(child, reduced)

        visit(self.lines[result].expression, False)
        return " ".join(f"{name}({self.last})" if taken else name for name, taken in whole.items())

    @cached_property
    def gradients(self) -> tuple[str, ...]:
        """`dx` of each input, then of each parameter."""
        return tuple(f"d{name}" for name in self.tensors)

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Backward's reads in addition to dy: inputs and parameters. Outputs and lines in between are recomputed."""
        return tuple(name for name in self.tensors if name in self.closure(self.gradients))

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The attributes that some line uses."""
        used = self.closure(self.lines)
        return tuple(name for name in self.op.attrs if name in used and self.kinds[name] == NUMBER)


def joined(kinds: Iterable[str]) -> str:
    """The kind of values made of such ones."""
    there = set(kinds)
    if ELEMENT in there or {ROW, COLUMN} <= there:
        return ELEMENT
    return next((kind for kind in (ROW, COLUMN) if kind in there), NUMBER)


def reductions(node: ast.expr) -> Iterator[ast.Call]:
    """The reductions in an expression, inner ones first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from reductions(child)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REDUCTIONS:
        yield node
