"""Op, the schema of an operation: named tensors with shape patterns, attributes, parameters.

It knows no way to compute one, no graph and no device.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import BuildError, CoreError, did_you_mean, words_of
from core.expr import Number, evaluate
from core.op.shape_pattern import Pattern, Slot

NAME = re.compile(r"[a-z][a-z0-9_]*")
COLLECTIVES = ("sum", "scatter", "gather")
USES = ("start", "counts", "random", "step", "ranks", "slices")


@dataclass(frozen=True)
class Param:
    """A parameter of an op.

    shape: a pattern without leading dims; no part of it may depend on B or T.
    init: "ones", "zeros", "normal(STD)" or "uniform(LIMIT)", with arithmetic over the model's dims.
    decay: whether weight decay applies. optional: the op gets a bool attr of the parameter's name (default true).
    """

    shape: str
    init: str = "normal(0.02)"
    decay: bool = True
    optional: bool = False


@dataclass(frozen=True)
class State:
    """A state of constant size, with the contents that it has before a row's first token.

    shape: a pattern without S whose first size is the rows of the batch. init: an init rule that draws nothing:
    "zeros", "ones", "constant(VALUE)" or "index(EXPRESSION)", with arithmetic over the op's dims.
    """

    shape: str
    init: str = "zeros"


@dataclass(frozen=True)
class Statement:
    """One step of a fused op's pattern: `p = matmul(x, weight, bias)`."""

    outputs: tuple[str, ...]
    op: str
    arguments: tuple[str, ...]
    attrs: Mapping[str, Any]


class Op:
    """An operation's schema.

    inputs, outputs: name -> pattern; a trailing `?` on an input's name makes it optional.
    state: name -> pattern, or a `State`: the tensor of the tokens so far in a decode session, in the first size's rows.
    A pattern with S has a place for each token, up to the capacity S; one without has a constant size. params: name ->
    Param. attrs: name -> default, or a bare type when required, or a tuple of choices for a str. infer(dims): adds dims
    or raises BuildError, for the rare op whose patterns are not enough. examples: those of `core check`: shapes by
    input name, attrs by name. replaces: the pattern of a fused op, `"p = matmul(x, weight, bias); y = add(r, p)"`.
    uses: "start" (position of the first token, for decoding), "counts" (while decoding, (rows,) i32: how many of the
        T tokens of each row there are, from 0; later ones are padding, and may not enter a state of constant size),
        "random", "step" (the optimizer's control record),
        "ranks" (the group of the run's processes, `core.ranks.group.Ranks`), "slices" (`t.slices`: the slices of which
        an update has one on each rank, `core.ranks.slices.Slices`, where its inputs are slices; else None).
    commutes: whether the first two inputs may be swapped. gradient: False for updates and norms.
    mutates: inputs that the op writes to.
    formulas: lines `y = expression` and `dx = expression`: a reference and kernels are made of them (docs/plugins.md).
    flops: of forward, as published utilisations count them: multiplications and additions of matrix products, an
    expression over dims, attrs and `rows`; "0" for the ops that are bound by memory. needed_flops: of these, the ones
    whose results are used, where that is fewer (causal attention). Backward counts twice as many.
    padding: dims, and attributes that are sizes, that may be padded (`"..."` for the leading ones): with zeros there in
    inputs, parameters and output gradients, the outputs and gradients have zeros there too, and are otherwise
    unchanged by padding. A node with padding anywhere else is refused.
    decodes: optional inputs that the op takes into account while decoding too. A model that connects another one to an
    op with state or `uses=("start",)` does not generate.
    collective: its effect on a flat tensor over the ranks of a run: one of COLLECTIVES, which no other op does.
    why_no_decode(dims): why a node with these dims and attrs cannot be computed token by token, as where a token
    depends on later ones; None when it can.

    Raises BuildError when names collide or a pattern does not parse.
    """

    def __init__(
        self,
        name: str,
        *,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str] | None = None,
        params: Mapping[str, Param] | None = None,
        attrs: Mapping[str, Any] | None = None,
        state: Mapping[str, str | State] | None = None,
        infer: Callable[[dict[str, Any]], None] | None = None,
        examples: Sequence[Mapping[str, Any]] = (),
        replaces: str = "",
        uses: Sequence[str] = (),
        commutes: bool = False,
        gradient: bool = True,
        mutates: Sequence[str] = (),
        formulas: str = "",
        flops: str = "0",
        needed_flops: str = "",
        padding: Sequence[str] = (),
        decodes: Sequence[str] = (),
        collective: str = "",
        why_no_decode: Callable[[Mapping[str, Any]], str | None] = lambda dims: None,
        doc: str = "",
    ) -> None:
        self.name = name
        self.inputs = self._slots(inputs)
        self.outputs = self._slots(outputs or {})
        self.state, self.constant_state = self._states(state or {})
        self.params = dict(params or {})
        self.param_patterns = {p: Pattern.parse(d.shape, f"{name}.{p}") for p, d in self.params.items()}
        self.attrs: dict[str, Any] = dict(attrs or {})
        for param, declared in self.params.items():
            if declared.optional:
                self.attrs.setdefault(param, True)
        self.infer = infer
        self.examples = [dict(example) for example in examples]
        self.replaces = replaces
        self.statements = parse_statements(replaces, name) if replaces else ()
        self.uses = tuple(uses)
        self.commutes, self.gradient, self.formulas = commutes, gradient, formulas
        self.mutates = tuple(mutates)
        self.flops, self.needed_flops = flops, needed_flops or flops
        self.padding, self.decodes = tuple(padding), tuple(decodes)
        self.why_no_decode, self.collective = why_no_decode, collective
        self.doc = doc
        self.origin = ""  # the plugin that brought it; stamped when registered
        caller = sys._getframe(1)
        self.where = f"{caller.f_code.co_filename}:{caller.f_lineno}"  # for an error that names two definitions
        self._validate()

    def __repr__(self) -> str:
        return f"Op({self.name!r})"

    def default_of(self, attr: str) -> Any:
        """The value of an attribute where a node gives none; None for a required one."""
        default = self.attrs[attr]
        return None if isinstance(default, type) else default[0] if isinstance(default, tuple) else default

    def _slots(self, patterns: Mapping[str, str]) -> dict[str, Slot]:
        slots = {}
        for key, text in patterns.items():
            name = key.rstrip("?")
            slots[name] = Slot(name, Pattern.parse(text, f"{self.name}.{name}"), key.endswith("?"))
        return slots

    def _states(self, patterns: Mapping[str, str | State]) -> tuple[dict[str, Slot], dict[str, str]]:
        """The states, and the init rule of each that has a constant size."""
        states = {name: State(one) if isinstance(one, str) else one for name, one in patterns.items()}
        slots = self._slots({name: one.shape for name, one in states.items()})
        return slots, {n: states[n].init for n, slot in slots.items() if "S" not in slot.pattern.tokens}

    def _validate(self) -> None:
        if not NAME.fullmatch(self.name):
            raise BuildError(f'op name "{self.name}" is not a lower-case identifier')
        tensors = [*self.inputs, *self.outputs, *self.state, *self.params]
        gradients = ["d" + n for n in (*self.inputs, *self.outputs, *self.params)]
        others = [a for a in self.attrs if a not in self.params]
        seen: set[str] = set()
        for used in (*tensors, *gradients, *others, "config", "step", "start", "counts", "key", "ranks", "slices"):
            if used in seen:
                raise BuildError(
                    f'op "{self.name}": the name "{used}" has two meanings',
                    hint="inputs, outputs, params, state, attrs and gradients (`d` + name) must all differ",
                )
            seen.add(used)
        if self.collective and self.collective not in COLLECTIVES:
            raise BuildError(f'op "{self.name}" is collective "{self.collective}"; expected one of {COLLECTIVES}')
        for use in self.uses:
            if use not in USES:
                raise BuildError(f'op "{self.name}" uses "{use}"; expected one of {", ".join(USES)}')
        if self.constant_state and "counts" not in self.uses:
            name = next(iter(self.constant_state))
            raise BuildError(
                f'op "{self.name}": the state "{name}" is "{self.state[name].pattern.text}", of constant size, and the '
                'op does not use "counts"',
                hint='uses=("counts",), and a state that only the first t.counts[b] tokens of row b enter; or a cache '
                'with a place for each token: "B S ...", S its capacity',
            )
        for name, pattern in self.param_patterns.items():
            if pattern.leading:
                raise BuildError(
                    f'op "{self.name}": the shape of param "{name}" has "..."; a param needs explicit sizes'
                )
        for name in self.decodes:
            if name not in self.inputs or not self.inputs[name].optional:
                raise BuildError(f'op "{self.name}" decodes "{name}", which is not an optional input')
        for name in self.mutates:
            if name not in self.inputs:
                raise BuildError(f'op "{self.name}" mutates "{name}", which is not an input')

    @property
    def sequential(self) -> bool:
        """Whether a token's results depend on its position or on other tokens: decoding is not one token alone."""
        return "start" in self.uses or bool(self.state)

    # --- the parts of a node of this op -------------------------------------------------------------------

    def settle_attrs(self, attrs: Mapping[str, Any], dims: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Attribute values from a node's keys: strings where numbers belong are arithmetic over `dims`.

        Raises BuildError for an unknown, missing or ill-typed attribute.
        """
        for key in attrs:
            if key not in self.attrs:
                raise BuildError(
                    f'{where}: op "{self.name}" has no attribute "{key}"{did_you_mean(key, self.attrs)}',
                    hint=f"it has: {', '.join(self.attrs) or 'none'}",
                )
        settled: dict[str, Any] = {}
        for key, default in self.attrs.items():
            if key not in attrs:
                if isinstance(default, type):
                    raise BuildError(f'{where}: op "{self.name}" needs the attribute "{key}" ({default.__name__})')
                settled[key] = self.default_of(key)
            else:
                settled[key] = self.settle_attr(key, attrs[key], dims, where)
        return settled

    def settle_attr(self, key: str, value: Any, dims: Mapping[str, Any], where: str) -> Any:
        """The value of one attribute that the op has. BuildError for one of another type."""
        return _settle(value, self.attrs[key], dims, f'{where}: attribute "{key}"')

    def present_params(self, attrs: Mapping[str, Any]) -> dict[str, Param]:
        """The parameters that a node with these attrs has: optional ones may be switched off."""
        return {p: d for p, d in self.params.items() if not (d.optional and not attrs[p])}

    def solve(self, shapes: Mapping[str, tuple[int, ...]], attrs: Mapping[str, Any], where: str) -> dict[str, Any]:
        """All dims of a node: attrs, and names bound by unifying the inputs' shapes, then `infer`."""
        dims: dict[str, Any] = dict(attrs)
        arithmetic_last = sorted(
            self.inputs, key=lambda n: any(not t.isidentifier() for t in self.inputs[n].pattern.tokens)
        )
        for name in arithmetic_last:
            if name in shapes:
                self.inputs[name].pattern.unify(tuple(shapes[name]), dims, f"{where}.{name}")
        if self.infer is not None:
            try:
                self.infer(dims)
            except BuildError as error:
                raise BuildError(f"{where}: {error.message}", hint=error.hint) from None
            except CoreError:
                raise
            except Exception as error:  # that code is its author's
                raise BuildError(
                    f'{where}: infer of op "{self.name}" ({self.origin or "no plugin"}) raised {words_of(error)}',
                    hint="infer raises BuildError for sizes that do not fit",
                ) from error
        return dims


def _settle(value: Any, default: Any, dims: Mapping[str, Any], where: str) -> Any:
    if isinstance(default, tuple):
        if value not in default:
            raise BuildError(f"{where} is {value!r}; expected one of {', '.join(map(repr, default))}")
        return value
    kind = default if isinstance(default, type) else type(default)
    if kind is str:
        if not isinstance(value, str):
            raise BuildError(f"{where} is {value!r}; expected a string")
        return value
    if kind is list:
        if not isinstance(value, list | tuple):
            raise BuildError(f"{where} is {value!r}; expected a list")
        return list(value)
    if kind is bool:
        truth = evaluate(value, dims, where) if isinstance(value, str) else value
        if truth not in (0, 1) or not isinstance(value, bool | str):
            raise BuildError(f"{where} is {value!r}; expected true or false, or arithmetic that is 1 or 0")
        return bool(truth)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BuildError(f"{where} is {value!r}; expected a number or arithmetic over the dims")
    number: Number = evaluate(value, dims, where)
    if kind is int and not isinstance(number, int):
        raise BuildError(f"{where} is {value!r} = {number}; expected a whole number")
    return number if kind is int else float(number)


def parse_statements(text: str, op: str) -> tuple[Statement, ...]:
    """`"p = matmul(x, weight, bias); y = add(r, p)"` as statements. Raises BuildError if it is not that form."""
    statements = []
    for part in text.split(";"):
        left, equals, right = part.partition("=")
        try:
            call = ast.parse(right.strip(), mode="eval").body
            if not (equals and isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                raise ValueError
            arguments = tuple(a.id for a in call.args if isinstance(a, ast.Name))
            if len(arguments) != len(call.args):
                raise ValueError
            attrs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        except (SyntaxError, ValueError):
            raise BuildError(
                f'op "{op}": cannot read "{part.strip()}" in replaces; expected `y = op(a, b, attr=1)`'
            ) from None
        statements.append(Statement(tuple(n.strip() for n in left.split(",")), call.func.id, arguments, attrs))
    return tuple(statements)
