"""Random models over all registered ops, as model documents: the inputs of `core.testing.graphs`.

A model is written node by node. An op is taken at random, its attributes from its defaults, its examples and the sizes
at hand, its inputs from the values that exist; a combination that its schema accepts becomes a node
(`core.testing.graph_nodes`). No op is known by name: the schema shows which op makes logits, embeds tokens or measures
a loss. A seed gives one model, on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.devices import CPU
from core.errors import BuildError
from core.expr import evaluate, pad, unpadded
from core.op import Op
from core.registry import REFERENCE, Registry
from core.testing.graph_document import RandomModel, drop_unused, read_by
from core.testing.graph_nodes import TRIES, Made, NodeAuthor, Scope
from core.testing.graph_schemas import (
    padded,
    required_sizes,
    sized,
    takes,
)


def random_model(seed: int, registry: Registry) -> RandomModel:
    """The model of a seed. Raises BuildError where the registry has no linear map, no table of ids or no loss."""
    for attempt in range(100):
        author = ModelAuthor(seed, attempt, registry)
        model = author.model()
        try:
            graph = model.source.build(registry)
        except BuildError:  # something that nothing uses, mostly: the next attempt
            continue
        author.settings(model, list(graph.parameters))
        model.features |= {f"padding in {n.op.name}" for n in graph.nodes if padded(n, graph)}
        return model
    raise BuildError(f"no model of seed {seed} builds")


class ModelAuthor(NodeAuthor):
    """Writes a whole model: its trunk, blocks, loss terms, and how it is to be planned."""

    # --- the model ---------------------------------------------------------------------------------------------------

    def model(self) -> RandomModel:
        V, C = int(self.rng.integers(5, 10)), int(self.rng.integers(1, 7))
        written: dict[str, Any] = {"B": 4, "T": int(self.rng.integers(2, 6)), "V": V, "C": C}
        written |= {"S": written["T"] + 5, "P": "pad(V, 4)", "Q": "pad(C, 4)"}
        self.dims = {**written, "P": pad(V, 4), "Q": pad(C, 4)}
        B, T = written["B"], written["T"]
        inputs: dict[str, Any] = {"tokens": ((B, T), "i32", V), "targets": ((B, T), "i32", V)}
        top = Scope(inputs)
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

    def embed(self, scope: Scope) -> None:
        """Tokens to activations; the first node of every model."""
        size = self.some(["V", "P"])
        made = self.fits(self.table, sized(self.table, {0: size, 1: self.some(["C", "C", "Q"])}), {0: "tokens"}, scope)
        if made is None:
            made = self.fits(self.table, sized(self.table, {0: "V", 1: "C"}), {0: "tokens"}, scope)
        assert made is not None
        self.add(scope, made)

    def term(self, scope: Scope, term: str, logits: str = "") -> None:
        """A linear map to the vocabulary and the criterion; perhaps the criterion twice, of the same logits."""
        value, logits = self.trunk(scope), logits or self.name()
        values = list(scope.values)
        self.add(scope, self.linear_map(scope, value, self.some(["V", "P"])), logits)
        for name in [self.name(), term] if self.chance(0.2) else [term]:
            measured = self.fits(self.criterion, {}, {0: logits, 1: "targets"}, scope)
            assert measured is not None
            self.add(scope, measured, name)
            self.loss[name] = float(self.some([1.0, 0.5, 2.0]))
        if len(self.loss) > 1:
            self.features.add("several loss terms")
        if not self.chance(0.3):  # further readers of a loss's logits are rare
            scope.values = {n: v for n, v in scope.values.items() if n in values}

    def gather(self, scope: Scope) -> None:
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

    def with_input(self, op: Op, place: int, value: str, scope: Scope) -> Made | None:
        """The op with one input fixed, and any fitting value for another one."""
        others = [i for i, s in enumerate(op.inputs.values()) if i != place and not s.optional]
        if not others:
            return self.fits(op, self.attrs(op), {place: value}, scope)
        for other in self.rng.permutation(scope.floats()).tolist() if len(others) == 1 else []:
            made = self.fits(op, self.attrs(op), {place: value, others[0]: other}, scope)
            if made is not None:
                return made
        return None

    def trunk(self, scope: Scope) -> str:
        """A value per token that depends on most earlier ones: the last ones, summed where they fit."""
        per_token = self.per_token(scope)
        last = per_token[-1]
        for other in [n for n in per_token[:-1] if self.chance(0.5)][-3:]:
            left, right = (self.to_width(scope, n, "C") for n in (last, other))
            last = self.sum(scope, left, right) or last
        return last

    def to_width(self, scope: Scope, value: str, size: str) -> str:
        wide = evaluate(size, self.dims)
        shape = scope.values[value][0]
        if shape[-1] == wide and unpadded(shape[-1]) == unpadded(int(wide)):
            return value
        try:
            return self.add(scope, self.linear_map(scope, value, size))
        except BuildError:
            return value

    # --- blocks ------------------------------------------------------------------------------------------------------

    def block_node(self, scope: Scope, depth: int) -> None:
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
        inner = Scope({**graph_inputs, **dict(zip(names, shapes, strict=True))})
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

    def like(self, scope: Scope, value: str, taken: int) -> str:
        """A value of the shape of `value`, made of values in scope."""
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
            chosen: str = self.some(same)
        else:
            chosen = value
            made = [n for n in scope.floats() if n not in scope.given and len(scope.values[n][0]) == 3]
            if made:
                try:
                    chosen = self.add(scope, self.linear_map(scope, self.some(made), self.written(shape[-1])))
                except BuildError:
                    chosen = value
        return self.sum(scope, value, chosen) or chosen if self.chance(0.6) else chosen

    # --- nodes -------------------------------------------------------------------------------------------------------

    def any_node(self, scope: Scope, last: bool = False) -> str | None:
        """One more node, of an op for the values at hand, or all nodes of a fused op's pattern; None where no op
        fits. last: on the last value for each token, if something takes it."""
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
        return any(target in op.inputs for v in variants if v.device == CPU.runs for target in v.inplace.values())

    def pattern(self, op: Op, scope: Scope) -> str:
        """Nodes that a fused op may take the place of: its statements, one by one. "" where nothing fits."""
        for _ in range(TRIES):
            trial = Scope(scope.values)
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
                values = [bound[r] for r, s in op.inputs.items() if not s.pattern.integer and r in bound]
                values = [value for value in values if value in scope.values]
                if values and self.chance(0.5):  # something that reads one of its inputs later
                    self.add(scope, self.linear_map(scope, self.some(values), "C"))
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
        scope: Scope,
    ) -> Made | None:
        """One statement of a pattern; binds the fused op's inputs to values."""
        widths = [self.written(scope.values[v][0][-1]) for v in bound.values()]
        attrs = self.attrs(part) | dict(fixed)
        attrs |= {k: self.some(widths) for k in required_sizes(part) if widths and self.chance(0.75)}
        params = [a for a in arguments if a in op.params]
        for param, declared in part.params.items():
            if declared.optional and param not in fixed:
                attrs[param] = len(params) == len(part.params) and self.chance(0.5)
        chosen: dict[int, str] = {}
        for place, name in enumerate(a for a in arguments if a not in op.params):
            slot = [*part.inputs.values()][place]
            if name not in bound:
                fit = [n for n, v in scope.values.items() if takes(slot.pattern, v) and n != "targets"]
                if self.chance(0.9):  # else a value of the pattern
                    fit = [n for n in fit if n in scope.given]
                if slot.optional and self.chance(0.8):
                    continue
                if not fit:
                    return None
                bound[name] = "targets" if part is self.criterion and slot.pattern.integer else self.some(fit)
            chosen[place] = bound[name]
        return self.fits(part, attrs, chosen, scope)

    def adopted(self, scope: Scope, trial: Scope, op: Op) -> str:
        """Take a pattern's nodes over, perhaps with parameters tied among them; its last node's name."""
        self.features.add(f"pattern of {op.name}")
        name = ""
        for name, spec in trial.nodes.items():
            params = {p.removeprefix(f"{name}."): s for p, s in trial.params.items() if p.startswith(f"{name}.")}
            values = {n: v for n, v in trial.values.items() if n.partition(".")[0] == name}
            outputs = {n.partition(".")[2] or "": v for n, v in values.items()}
            self.add(scope, Made(spec, outputs, params), name, trial.nodes)
        if self.chance(0.7):  # else a node may read the values between the statements
            shown = {statement.outputs[0] for statement in op.statements} & set(op.outputs)
            made = dict(zip((s.outputs[0] for s in op.statements), trial.nodes, strict=True))
            hidden = {node for output, node in made.items() if output not in shown}
            scope.values = {n: v for n, v in scope.values.items() if n.partition(".")[0] not in hidden}
        return name

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
