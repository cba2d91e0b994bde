"""Random models over all registered ops, as model documents: what `core.testing.graphs` holds the planner to.

A model is written node by node. An op is taken at random, its attributes from its defaults, its examples and the sizes
at hand, its inputs from the values that exist; whatever its schema accepts becomes a node. No op is known by name: what
makes logits, embeds tokens or measures a loss is found by its schema. A seed gives one model, on any machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import BuildError
from core.expr import Number, evaluate, pad, unpadded
from core.graph.padding import padded_attribute, padded_input
from core.op import ACC, Op
from core.registry import REFERENCE, Registry
from core.testing.graph_document import RandomModel, drop_unused, read_by
from core.testing.graph_schemas import (
    Shape,
    alike,
    feeds,
    is_criterion,
    is_linear,
    is_table,
    padded,
    required_sizes,
    sized,
    sizes_a_parameter,
    takes,
    the,
)

TRIES = 10  # attempts to find inputs and attributes that an op takes
LARGEST = 600  # elements of a value
WIDEST = 16  # features of a value that an adapter makes


@dataclass(frozen=True)
class _Made:
    """What a node would be: its attributes as the TOML has them, its outputs' shapes, dtypes and bounds, its params."""

    spec: dict[str, Any]
    outputs: dict[str, tuple[Shape, str | None, int | None]]
    params: dict[str, Shape]


class _Scope:
    """The names that one table sees, and the nodes that it has so far."""

    def __init__(self, values: Mapping[str, tuple[Shape, str | None, int | None]]) -> None:
        self.values = dict(values)
        self.given = set(values)
        self.nodes: dict[str, dict[str, Any]] = {}
        self.params: dict[str, Shape] = {}

    def floats(self) -> list[str]:
        return [n for n, (_, dtype, _) in self.values.items() if dtype is None]


def random_model(seed: int, registry: Registry) -> RandomModel:
    """The model of a seed. Raises BuildError where the registry has no linear map, no table of ids or no loss."""
    for attempt in range(100):
        author = _Author(seed, attempt, registry)
        found = author.model()
        try:
            graph = found.source.build(registry)
        except BuildError:  # something that nothing uses, mostly: the next attempt
            continue
        author.settings(found, list(graph.parameters))
        found.features |= {f"padding in {n.op.name}" for n in graph.nodes if padded(n, graph)}
        return found
    raise BuildError(f"no model of seed {seed} builds")


class _Author:
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

    # --- chance ------------------------------------------------------------------------------------------------------

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

    # --- the model ---------------------------------------------------------------------------------------------------

    def model(self) -> RandomModel:
        V, C = int(self.rng.integers(5, 10)), int(self.rng.integers(1, 7))
        written: dict[str, Any] = {"B": 4, "T": int(self.rng.integers(2, 6)), "V": V, "C": C}
        written |= {"S": written["T"] + 5, "P": "pad(V, 4)", "Q": "pad(C, 4)"}
        self.dims = {**written, "P": pad(V, 4), "Q": pad(C, 4)}
        B, T = written["B"], written["T"]
        inputs: dict[str, Any] = {"tokens": ((B, T), "i32", V), "targets": ((B, T), "i32", V)}
        top = _Scope(inputs)
        self.embed(top)
        for _ in range(int(self.rng.integers(2, 8))):
            if self.chance(0.25) and len(self.blocks) < 3:
                self.block_node(top, depth=0)
            else:
                self.any_node(top)
            if self.chance(0.1):
                self.term(top, self.name())
                self.any_node(top, last=True)
        self.gather(top)
        self.term(top, "loss", logits="y")
        drop_unused(top.nodes, {"y", *self.loss})
        rules = dict.fromkeys(inputs, "i32 < V")
        document: dict[str, Any] = {
            "inputs": {name: f"B T : {rule}" for name, rule in rules.items()},
            "logits": "y",
            "loss": self.loss,
            "dims": written,
            "graph": top.nodes,
        }
        if self.blocks:
            document["block"] = self.blocks
        self.prune(document)
        return RandomModel(self.seed, document, features=self.features)

    def embed(self, scope: _Scope) -> None:
        """Tokens to activations; the first node of every model."""
        size = self.some(["V", "P"])
        made = self.fits(self.table, sized(self.table, {0: size, 1: self.some(["C", "C", "Q"])}), {0: "tokens"}, scope)
        if made is None:
            made = self.fits(self.table, sized(self.table, {0: "V", 1: "C"}), {0: "tokens"}, scope)
        assert made is not None
        self.add(scope, made)

    def term(self, scope: _Scope, term: str, logits: str = "") -> None:
        """A linear map to the vocabulary and the criterion; perhaps the criterion twice, of the same logits."""
        value, logits = self.trunk(scope), logits or self.name()
        kept = list(scope.values)
        self.add(scope, self.linear_map(scope, value, self.some(["V", "P"])), logits)
        for name in [self.name(), term] if self.chance(0.2) else [term]:
            measured = self.fits(self.criterion, {}, {0: logits, 1: "targets"}, scope)
            assert measured is not None
            self.add(scope, measured, name)
            self.loss[name] = float(self.some([1.0, 0.5, 2.0]))
        if len(self.loss) > 1:
            self.features.add("several loss terms")
        if not self.chance(0.3):  # what reads a loss's logits besides is rare
            scope.values = {n: v for n, v in scope.values.items() if n in kept}

    def gather(self, scope: _Scope) -> None:
        """Bring values of more rows than tokens, such as one for each expert, back to a value for each token."""
        for name in [n for n in scope.floats() if len(scope.values[n][0]) > 3 and self.chance(0.9)]:
            for op in self.ops:
                places = [
                    i for i, s in enumerate(op.inputs.values()) if len(s.pattern.tokens) > 1 and s.pattern.leading
                ]
                made = self.with_input(op, places[0], name, scope) if places else None
                if made is not None:
                    self.add(scope, made)
                    break

    def with_input(self, op: Op, place: int, value: str, scope: _Scope) -> _Made | None:
        """The op with one input given, and whatever fits for one other."""
        others = [i for i, s in enumerate(op.inputs.values()) if i != place and not s.optional]
        if not others:
            return self.fits(op, self.attrs(op), {place: value}, scope)
        for other in self.rng.permutation(scope.floats()).tolist() if len(others) == 1 else []:
            made = self.fits(op, self.attrs(op), {place: value, others[0]: other}, scope)
            if made is not None:
                return made
        return None

    def trunk(self, scope: _Scope) -> str:
        """A value per token that most of what was made leads to: the last ones, summed where they fit."""
        per_token = self.per_token(scope)
        last = per_token[-1]
        for other in [n for n in per_token[:-1] if self.chance(0.5)][-3:]:
            left, right = (self.to_width(scope, n, "C") for n in (last, other))
            last = self.sum(scope, left, right) or last
        return last

    def to_width(self, scope: _Scope, value: str, size: str) -> str:
        wide = evaluate(size, self.dims)
        shape = scope.values[value][0]
        if shape[-1] == wide and unpadded(shape[-1]) == unpadded(int(wide)):
            return value
        try:
            return self.add(scope, self.linear_map(scope, value, size))
        except BuildError:
            return value

    def sum(self, scope: _Scope, left: str, right: str) -> str | None:
        """A node of an op that takes two values of one shape and gives one: a residual."""
        sums = [op for op in self.ops if op.commutes]
        made = self.fits(self.some(sums), {}, {0: left, 1: right}, scope) if sums else None
        if made is None:
            return None
        self.features.add("residuals")
        return self.add(scope, made)

    # --- blocks ------------------------------------------------------------------------------------------------------

    def block_node(self, scope: _Scope, depth: int) -> None:
        """A block, perhaps with a nested one, carried by one or two values; and a node that repeats it."""
        B, T = self.dims["B"], self.dims["T"]
        carried = [n for n in scope.floats() if scope.values[n][0][:2] == (B, T) and len(scope.values[n][0]) == 3]
        takes = [self.some(carried) for _ in range(2 if self.chance(0.3) else 1)]
        self.features.add("blocks" if depth == 0 else "nested blocks")
        if len(takes) > 1:
            self.features.add("carried lists")
        shapes = [scope.values[n] for n in takes]
        graph_inputs = {n: scope.values[n] for n in ("tokens", "targets")}
        names = [f"x{i}" for i in range(len(takes))]
        inner = _Scope({**graph_inputs, **dict(zip(names, shapes, strict=True))})
        key = f"b{len(self.blocks)}"
        self.blocks[key] = {}  # taken
        for _ in range(int(self.rng.integers(1, 5))):
            if depth == 0 and self.chance(0.2) and len(self.blocks) < 4:
                self.block_node(inner, depth + 1)
            else:
                self.any_node(inner)
        gives = [self.like(inner, names[i], taken=i) for i in range(len(takes))]
        if len(set(gives)) < len(gives):
            gives = [gives[0], names[0] if gives[0] != names[0] else names[1]] if shapes[0] == shapes[1] else gives[:1]
        if len(gives) < len(takes):
            del self.blocks[key]
            return
        drop_unused(inner.nodes, {*gives, *self.loss})
        self.blocks[key] = {"in": names, "out": gives, **inner.nodes}
        node = self.name()
        repeat = int(self.rng.integers(1, 4))
        scope.nodes[node] = {"block": key, "in": takes, "repeat": repeat}
        for i, give in enumerate(gives):
            scope.values[node if i == 0 else f"{node}.{give}"] = shapes[i]

    def like(self, scope: _Scope, value: str, taken: int) -> str:
        """A value of the shape of `value`, made of what the scope has."""
        shape = scope.values[value][0]
        same = [
            n
            for n in scope.floats()
            if n not in scope.given
            and scope.values[n][0] == shape
            and unpadded(scope.values[n][0][-1]) == unpadded(shape[-1])
            and "." not in n
        ]
        if same and self.chance(0.5):
            found: str = self.some(same)
        else:
            found = value
            made = [n for n in scope.floats() if n not in scope.given and len(scope.values[n][0]) == 3]
            if made:
                try:
                    found = self.add(scope, self.linear_map(scope, self.some(made), self.written(shape[-1])))
                except BuildError:
                    found = value
        return self.sum(scope, value, found) or found if self.chance(0.6) else found

    def written(self, size: int) -> Any:
        """A size as the TOML has it, with its padding."""
        return next((n for n in ("P", "Q") if size == self.dims[n] and size is self.dims[n]), int(size))

    # --- nodes -------------------------------------------------------------------------------------------------------

    def any_node(self, scope: _Scope, last: bool = False) -> str | None:
        """One more node, of an op that takes what there is, or all nodes of a fused op's pattern; None where none was
        found. last: on the last value for each token, if something takes it."""
        if last:
            value = self.per_token(scope)[-1]
            order = [self.ops[place] for place in self.rng.permutation(len(self.ops)).tolist()]
            for op in sorted(order, key=lambda o: not self.overwrites(o)):
                one = [s for s in op.inputs.values() if not s.optional]
                if len(one) == 1 and (made := self.fits(op, self.attrs(op), {0: value}, scope)) is not None:
                    return self.add(scope, made)
        if self.patterns and self.chance(0.25) and (name := self.pattern(self.some(self.patterns), scope)):
            return name
        for _ in range(4):
            op = self.some(self.ops)
            if op is self.criterion:
                continue
            made = self.attempt(op, scope)
            if made is not None:
                return self.add(scope, made)
        return None

    def overwrites(self, op: Op) -> bool:
        """Whether a variant may put the gradient of an input over an input."""
        variants = self.registry.variants[op.name].values()
        return any(target in op.inputs for v in variants if v.device == "cpu" for target in v.inplace.values())

    def pattern(self, op: Op, scope: _Scope) -> str:
        """Nodes that a fused op may take the place of: its statements, one by one. "" where nothing fits."""
        for _ in range(TRIES):
            trial = _Scope(scope.values)
            count, features = self.count, set(self.features)
            bound: dict[str, str] = {}
            for statement in op.statements:
                part = self.registry.ops[statement.op]
                made = self.statement(op, part, statement.arguments, statement.attrs, bound, trial)
                if made is None:
                    break
                name = self.name()
                trial.nodes[name] = dict(made.spec)
                for at, (role, value) in enumerate(made.outputs.items()):
                    trial.values[name if at == 0 else f"{name}.{role}"] = value
                trial.params |= {f"{name}.{role}": shape for role, shape in made.params.items()}
                bound |= dict(zip(statement.outputs, [name], strict=False))
            else:
                name = self.adopted(scope, trial, op)
                given = [bound[r] for r, s in op.inputs.items() if not s.pattern.integer and r in bound]
                given = [value for value in given if value in scope.values]
                if given and self.chance(0.5):  # something that reads one of its inputs later
                    self.add(scope, self.linear_map(scope, self.some(given), "C"))
                return name
            self.count, self.features = count, features
        return ""

    def statement(
        self,
        op: Op,
        part: Op,
        arguments: Sequence[str],
        fixed: Mapping[str, Any],
        bound: dict[str, str],
        scope: _Scope,
    ) -> _Made | None:
        """One statement of a pattern; binds the fused op's inputs to values."""
        widths = [self.written(scope.values[v][0][-1]) for v in bound.values()]
        attrs = self.attrs(part) | dict(fixed)
        attrs |= {k: self.some(widths) for k in required_sizes(part) if widths and self.chance(0.75)}
        given = [a for a in arguments if a in op.params]
        for param, declared in part.params.items():
            if declared.optional and param not in fixed:
                attrs[param] = len(given) == len(part.params) and self.chance(0.5)
        chosen: dict[int, str] = {}
        for place, name in enumerate(a for a in arguments if a not in op.params):
            slot = [*part.inputs.values()][place]
            if name not in bound:
                fit = [n for n, v in scope.values.items() if takes(slot.pattern, v) and n != "targets"]
                if self.chance(0.9):  # else what the pattern itself makes
                    fit = [n for n in fit if n in scope.given]
                if slot.optional and self.chance(0.8):
                    continue
                if not fit:
                    return None
                bound[name] = "targets" if part is self.criterion and slot.pattern.integer else self.some(fit)
            chosen[place] = bound[name]
        return self.fits(part, attrs, chosen, scope)

    def adopted(self, scope: _Scope, trial: _Scope, op: Op) -> str:
        """Take a pattern's nodes over, perhaps with parameters tied among them; its last node's name."""
        self.features.add(f"pattern of {op.name}")
        name = ""
        for name, spec in trial.nodes.items():
            params = {p.removeprefix(f"{name}."): s for p, s in trial.params.items() if p.startswith(f"{name}.")}
            values = {n: v for n, v in trial.values.items() if n.partition(".")[0] == name}
            outputs = {n.partition(".")[2] or "": v for n, v in values.items()}
            self.add(scope, _Made(spec, outputs, params), name, trial.nodes)
        if self.chance(0.7):  # else something may read what lies between the statements
            shown = {statement.outputs[0] for statement in op.statements} & set(op.outputs)
            made = dict(zip((s.outputs[0] for s in op.statements), trial.nodes, strict=True))
            hidden = {node for output, node in made.items() if output not in shown}
            scope.values = {n: v for n, v in scope.values.items() if n.partition(".")[0] not in hidden}
        return name

    def per_token(self, scope: _Scope) -> list[str]:
        B, T = self.dims["B"], self.dims["T"]
        return [n for n in scope.floats() if len(scope.values[n][0]) == 3 and scope.values[n][0][:2] == (B, T)]

    def attempt(self, op: Op, scope: _Scope, deep: bool = True) -> _Made | None:
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

    def adapted(self, op: Op, place: int, scope: _Scope) -> _Made | None:
        """The op on a value that a linear map makes wide enough for it."""
        B, T = int(self.dims["B"]), int(self.dims["T"])
        for width in self.rng.permutation(np.arange(1, WIDEST + 1)).tolist():
            attrs = self.attrs(op)
            trial = _Scope({"trial": ((B, T, width), None, None)})
            if self.fits(op, attrs, {place: "trial"}, trial) is None:
                continue
            values = [n for n in scope.floats() if len(scope.values[n][0]) == 3 and scope.values[n][0][:2] == (B, T)]
            try:
                value = self.add(scope, self.linear_map(scope, self.some(values), width))
                if self.chance(0.3):  # something that reads it besides, perhaps by way of a sum
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

    def supplied(self, op: Op, scope: _Scope) -> _Made | None:
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

    def inputs(self, op: Op, scope: _Scope) -> dict[int, str] | None:
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
        """Attributes as the TOML has them: of an example, with the sizes of parameters drawn anew; or the defaults."""
        example = self.some(op.examples) if op.examples and self.chance(0.7) else {}
        attrs = {k: v for k, v in example.items() if k in op.attrs}
        for key, default in op.attrs.items():
            if key in op.params:
                attrs[key] = self.chance(0.5)
            elif sizes_a_parameter(op, key):
                attrs[key] = self.size()
            elif isinstance(default, type) and key not in attrs:
                known = [e[key] for e in op.examples if key in e]
                attrs[key] = self.some(known) if known else self.size()
        return attrs

    def linear_map(self, scope: _Scope, value: str, size: Any) -> _Made:
        (key,) = (k for k in self.linear.attrs if sizes_a_parameter(self.linear, k))
        attrs: dict[str, Any] = {key: size}
        for param, declared in self.linear.params.items():
            if declared.optional:
                attrs[param] = self.chance(0.4)
        made = self.fits(self.linear, attrs, {0: value}, scope)
        if made is None:
            raise BuildError(f"no linear map of {value} to {size}")
        return made

    def fits(self, op: Op, attrs: Mapping[str, Any], chosen: Mapping[int, str], scope: _Scope) -> _Made | None:
        """The node, if the schema takes these attributes and inputs."""
        roles = list(op.inputs)
        inputs = {roles[place]: name for place, name in chosen.items()}
        attrs = dict(attrs)
        for role, name in inputs.items():  # a table has as many rows as its ids may ask for
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
        given: Any = inputs if self.chance(0.3) or list(inputs) != roles[: len(inputs)] else list(inputs.values())
        spec = {"op": op.name, "in": given[0] if isinstance(given, list) and len(given) == 1 else given, **attrs}
        return _Made(spec, outputs, params)

    def add(self, scope: _Scope, made: _Made, name: str = "", close: Collection[str] = ()) -> str:
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

    # --- what nothing uses -------------------------------------------------------------------------------------------

    def prune(self, document: dict[str, Any]) -> None:
        """Blocks that no node repeats any more, and loss terms whose node is gone."""
        while True:
            tables = [document["graph"], *document.get("block", {}).values()]
            used = {n["block"] for t in tables for n in t.values() if isinstance(n, dict) and "block" in n}
            gone = set(document.get("block", {})) - used
            if not gone:
                break
            for key in gone:
                del document["block"][key]
        if not document.get("block", True):
            del document["block"]
        made = {n for t in tables for n in t}
        document["loss"] = {k: w for k, w in document["loss"].items() if k.lstrip("*") in made}

    # --- how it is planned -------------------------------------------------------------------------------------------

    def frozen(self, parameters: Sequence[str]) -> tuple[str, ...]:
        """Parameters that do not train: the first ones, some, or all but one or two."""
        kind = self.some(["first", "some", "most"])
        if kind == "first":
            return tuple(parameters[: int(self.rng.integers(len(parameters)))])
        if kind == "some":
            return tuple(p for p in parameters[:-1] if self.chance(0.4))
        trained = {self.some(parameters) for _ in range(2)}
        return tuple(p for p in parameters if p not in trained)

    def settings(self, model: RandomModel, parameters: Sequence[str]) -> None:
        tables = [model.document["graph"], *model.document.get("block", {}).values()]
        nodes = [n for t in tables for n in t.values() if isinstance(n, dict) and "op" in n]
        names = sorted({n["op"] for n in nodes})
        self.features |= {f"op {n}" for n in names}
        read = [v for t in tables for n in t.values() if isinstance(n, dict) for v in read_by(n)]
        if len(set(read)) < len(read):
            self.features.add("values used twice")
        settings = model.settings
        share = self.some([0.0, 0.0, 0.1, 0.3, 1.0])
        settings["recompute"] = tuple(n for n in names if self.chance(share))
        settings["fusion"] = {o.name: False for o in self.registry.ops.values() if o.replaces and self.chance(0.2)}
        settings["alias"], settings["in_place"] = self.chance(0.7), self.chance(0.7)
        settings["ops"] = {}
        for op in names:
            if len(self.registry.variants[op]) > 1 and self.chance(0.07):
                settings["ops"][op] = REFERENCE  # others may not run on every shape
        model.micro_steps = self.some([1, 2, 4])
        settings["freeze"] = ()
        if self.chance(0.4):
            settings["freeze"] = self.frozen(parameters)
            self.features.add("freeze")
        for name in ("recompute", "alias", "in_place"):
            if settings[name]:
                self.features.add(name)
