"""One node of a random model: an op with attributes and inputs that its schema accepts, added to a table.

`core.testing.graph_models` makes whole models of these nodes. No op is known by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import BuildError
from core.expr import Number, evaluate, unpadded
from core.graph.padding import padded_attribute, padded_input
from core.op import ACC, Op
from core.registry import Registry
from core.testing.graph_schemas import (
    Shape,
    alike,
    feeds,
    is_criterion,
    is_linear,
    is_table,
    sizes_a_parameter,
    takes,
    the,
)

TRIES = 10  # attempts to find inputs and attributes that an op takes
LARGEST = 600  # elements of a value
WIDEST = 16  # features of a value that an adapter makes


@dataclass(frozen=True)
class Made:
    """A node before it is added: its attributes as in the TOML, its outputs' shapes, dtypes and bounds, its params."""

    spec: dict[str, Any]
    outputs: dict[str, tuple[Shape, str | None, int | None]]
    params: dict[str, Shape]


class Scope:
    """The names that one table sees, and the nodes that it has so far."""

    def __init__(self, values: Mapping[str, tuple[Shape, str | None, int | None]]) -> None:
        self.values = dict(values)
        self.given = set(values)
        self.nodes: dict[str, dict[str, Any]] = {}
        self.params: dict[str, Shape] = {}

    def floats(self) -> list[str]:
        return [n for n, (_, dtype, _) in self.values.items() if dtype is None]


class NodeAuthor:
    """Writes nodes by chance: the same for the same seed and attempt. dims: the model's sizes by name. loss: weights of
    the terms so far. features: kinds of things that the model has."""

    def __init__(self, seed: int, attempt: int, registry: Registry) -> None:
        self.rng = np.random.default_rng([seed, attempt])
        self.registry, self.seed = registry, seed
        usable = [op for op in registry.ops.values() if op.gradient and op.outputs and op.inputs]
        self.ops = [op for op in usable if not op.replaces]
        self.linear = the("linear map", filter(is_linear, self.ops))
        self.table = the("table of ids", filter(is_table, self.ops))
        self.criterion = the("loss", filter(is_criterion, self.ops))
        self.patterns = [op for op in usable if op.replaces and self.criterion.name not in op.replaces]
        self.dims: dict[str, Number] = {}
        self.count = 0
        self.blocks: dict[str, dict[str, Any]] = {}
        self.loss: dict[str, float] = {}
        self.features: set[str] = set()

    def some(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def name(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def size(self) -> Any:
        """A size as a TOML has it: a number, a dim, arithmetic, or a padded dim."""
        return self.some([1, 2, 3, 4, 6, "C", "C", "C", "2*C", "P", "Q"])

    def sum(self, scope: Scope, left: str, right: str) -> str | None:
        """A node of an op that takes two values of one shape and gives one: a residual."""
        sums = [op for op in self.ops if op.commutes]
        made = self.fits(self.some(sums), {}, {0: left, 1: right}, scope) if sums else None
        if made is None:
            return None
        self.features.add("residuals")
        return self.add(scope, made)

    def per_token(self, scope: Scope) -> list[str]:
        B, T = self.dims["B"], self.dims["T"]
        return [n for n in scope.floats() if len(scope.values[n][0]) == 3 and scope.values[n][0][:2] == (B, T)]

    def attempt(self, op: Op, scope: Scope, deep: bool = True) -> Made | None:
        for _ in range(TRIES):
            attrs = self.attrs(op)
            chosen = self.inputs(op, scope)
            if chosen is not None:
                made = self.fits(op, attrs, chosen, scope)
                if made is not None:
                    if len(set(chosen.values())) < len(chosen):
                        self.features.add("the same value twice in a node")
                    return made
        floats = [i for i, s in enumerate(op.inputs.values()) if not s.optional and not s.pattern.integer]
        needed = [s for s in op.inputs.values() if not s.optional]
        if len(needed) == 1 and len(floats) == 1:
            return self.adapted(op, floats[0], scope)
        return self.supplied(op, scope) if deep else None

    def adapted(self, op: Op, place: int, scope: Scope) -> Made | None:
        """The op on a value that a linear map makes wide enough for it."""
        B, T = int(self.dims["B"]), int(self.dims["T"])
        for width in self.rng.permutation(np.arange(1, WIDEST + 1)).tolist():
            attrs = self.attrs(op)
            trial = Scope({"trial": ((B, T, width), None, None)})
            if self.fits(op, attrs, {place: "trial"}, trial) is None:
                continue
            values = [n for n in scope.floats() if len(scope.values[n][0]) == 3 and scope.values[n][0][:2] == (B, T)]
            try:
                value = self.add(scope, self.linear_map(scope, self.some(values), width))
                if self.chance(0.3):  # a further reader, perhaps by way of a sum
                    other = self.sum(scope, value, value) if self.chance(0.5) else value
                    self.add(scope, self.linear_map(scope, other or value, "C"))
            except BuildError:
                return None
            optional = {i: "tokens" for i, s in enumerate(op.inputs.values()) if s.optional and s.pattern.integer}
            if optional and "tokens" in scope.values and self.chance(0.3):
                self.features.add("optional inputs")
                return self.fits(op, attrs, {place: value, **optional}, scope)
            return self.fits(op, attrs, {place: value}, scope)
        return None

    def supplied(self, op: Op, scope: Scope) -> Made | None:
        """The op after another op has made one of its inputs, such as integers that choose experts."""
        for slot in op.inputs.values():
            makers = [
                o for o in self.ops if o is not op and any(feeds(s.pattern, slot.pattern) for s in o.outputs.values())
            ]
            if slot.optional or not makers or (not slot.pattern.integer and len(slot.pattern.tokens) < 2):
                continue
            exact = [o for o in makers if any(len(s.pattern.tokens) > 2 for s in o.outputs.values())]
            makers = exact if exact and not slot.pattern.integer else makers
            made = self.attempt(self.some(makers), scope, deep=slot.pattern.dtype is None)
            if made is not None:
                self.add(scope, made)
        for _ in range(2 * TRIES):
            chosen = self.inputs(op, scope)
            made = self.fits(op, self.attrs(op), chosen, scope) if chosen is not None else None
            if made is not None:
                return made
        return None

    def inputs(self, op: Op, scope: Scope) -> dict[int, str] | None:
        """A value for each input by its place; the recent ones are likelier, and one may come twice."""
        chosen: dict[int, str] = {}
        for place, slot in enumerate(op.inputs.values()):
            if slot.optional and not self.chance(0.3):
                continue
            fit = [n for n, v in scope.values.items() if takes(slot.pattern, v) and n != "targets"]
            if not fit:
                if slot.optional:
                    continue
                return None
            more = [n for n in fit if len(scope.values[n][0]) > 3]  # rows for each of a token's experts
            fit = [*fit, *fit[-2:], *more, *more, *(n for n in chosen.values() if n in fit)]
            chosen[place] = self.some(fit)
            if slot.optional:
                self.features.add("optional inputs")
        return chosen

    def attrs(self, op: Op) -> dict[str, Any]:
        """Attributes as the TOML has them: of an example, with new sizes of parameters; or the defaults."""
        example = self.some(op.examples) if op.examples and self.chance(0.7) else {}
        attrs = {k: v for k, v in example.items() if k in op.attrs}
        for key, default in op.attrs.items():
            if key in op.params:
                attrs[key] = self.chance(0.5)
            elif sizes_a_parameter(op, key):
                attrs[key] = self.size()
            elif isinstance(default, type) and key not in attrs:
                values = [e[key] for e in op.examples if key in e]
                attrs[key] = self.some(values) if values else self.size()
        return attrs

    def linear_map(self, scope: Scope, value: str, size: Any) -> Made:
        (key,) = (k for k in self.linear.attrs if sizes_a_parameter(self.linear, k))
        attrs: dict[str, Any] = {key: size}
        for param, declared in self.linear.params.items():
            if declared.optional:
                attrs[param] = self.chance(0.4)
        made = self.fits(self.linear, attrs, {0: value}, scope)
        if made is None:
            raise BuildError(f"no linear map of {value} to {size}")
        return made

    def fits(self, op: Op, attrs: Mapping[str, Any], chosen: Mapping[int, str], scope: Scope) -> Made | None:
        """The node, if the schema takes these attributes and inputs."""
        roles = list(op.inputs)
        inputs = {roles[place]: name for place, name in chosen.items()}
        attrs = dict(attrs)
        for role, name in inputs.items():  # a table has a row for each legal id
            bound = op.inputs[role].pattern.bound
            rows = scope.values[name][2]
            if rows is None or bound not in op.attrs or not sizes_a_parameter(op, bound):
                continue
            if unpadded(int(evaluate(attrs.get(bound, rows), self.dims))) < rows:
                attrs[bound] = rows
        shapes = {role: scope.values[name][0] for role, name in inputs.items()}
        try:
            settled = op.settle_attrs(attrs, self.dims, "")
            if padded_input(op, shapes) or padded_attribute(op, settled):
                return None
            dims = op.solve(shapes, settled, "")
            for role, name in inputs.items():
                most, bound = scope.values[name][2], op.inputs[role].pattern.bound
                if bound is not None and (most is None or most > unpadded(int(evaluate(bound, dims)))):
                    return None
            outputs = {}
            for role, slot in op.outputs.items():
                bound = slot.pattern.bound
                limit = None if bound is None else unpadded(int(evaluate(bound, dims)))
                outputs[role] = (slot.pattern.shape(dims), slot.pattern.dtype, limit)
            params = {p: op.param_patterns[p].shape(dims) for p in op.present_params(settled)}
        except (BuildError, ZeroDivisionError):
            return None
        if any(int(np.prod(shape)) > LARGEST for shape, _, _ in outputs.values()):
            return None
        by_role = self.chance(0.3) or list(inputs) != roles[: len(inputs)]
        values = list(inputs.values())
        spec = {"op": op.name, "in": inputs if by_role else values[0] if len(values) == 1 else values, **attrs}
        return Made(spec, outputs, params)

    def add(self, scope: Scope, made: Made, name: str = "", close: Collection[str] = ()) -> str:
        """Write a node, perhaps with one of its parameters tied to an earlier one, of the nodes `close` if possible."""
        name = name or self.name()
        spec = dict(made.spec)
        tied: dict[str, str] = {}
        for role, shape in made.params.items():
            same = [p for p, s in scope.params.items() if alike(s, shape) and p not in tied.values()]
            near = [p for p in same if p.partition(".")[0] in close]
            if same and self.chance(0.6 if near else 0.3):
                same = near or same
                tied[role] = self.some(same)
                self.features.add("ties")
        if tied:
            spec["tie"] = tied
        scope.params |= {f"{name}.{role}": shape for role, shape in made.params.items() if role not in tied}
        scope.nodes[name] = spec
        for index, (role, value) in enumerate(made.outputs.items()):
            scope.values[name if index == 0 else f"{name}.{role}"] = value
            if value[1] == ACC and spec["op"] != self.criterion.name:
                del scope.values[name if index == 0 else f"{name}.{role}"]
                self.loss[f"*{name}"] = float(self.some([0.1, 1.0]))
                self.features.add("scalar loss terms")
        return name

    def written(self, size: int) -> Any:
        """A size as the TOML has it, with its padding."""
        return next((n for n in ("P", "Q") if size == self.dims[n] and size is self.dims[n]), int(size))
