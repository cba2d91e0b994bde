"""A random model as a document and a text, and the smaller models that remain without some of its parts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.graph import ModelSource


@dataclass
class RandomModel:
    """A model and how it is planned.

    settings: `freeze`, `recompute`, `fusion`, `ops`, `alias`, `in_place` of core.engine.Settings. micro_steps: how many
    the batch's rows are divided into. features: its parts, for a table of the models that were tried.
    """

    seed: int
    document: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    micro_steps: int = 1
    features: set[str] = field(default_factory=set)

    @property
    def source(self) -> ModelSource:
        return ModelSource(f"graph_{self.seed}", self.document, ())

    def __str__(self) -> str:
        lines = [f"# seed {self.seed}, micro-steps {self.micro_steps}"]
        lines += [f"# {name} = {value!r}" for name, value in sorted(self.settings.items())]
        return "\n".join([*lines, *_toml(self.document)])


# --- as a text -------------------------------------------------------------------------------------------------------


def _toml(document: Mapping[str, Any]) -> Iterator[str]:
    """A model document as TOML, a node on a line."""
    plain = {k: v for k, v in document.items() if k not in ("dims", "graph", "block")}
    yield from (f"{key} = {_inline(value)}" for key, value in plain.items())
    tables = {"dims": document["dims"], "graph": document["graph"]}
    tables |= {f"block.{name}": block for name, block in document.get("block", {}).items()}
    for name, table in tables.items():
        yield f"[{name}]"
        yield from (f"{key} = {_inline(value)}" for key, value in table.items())


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{k if k.isidentifier() else json.dumps(k)} = {_inline(v)}" for k, v in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)


# --- less of it ------------------------------------------------------------------------------------------------------


def drop_unused(nodes: dict[str, dict[str, Any]], wanted: Collection[str]) -> None:
    """Remove nodes that nothing reads, ties to or wants, from the end. wanted: values, or loss terms as globs."""
    used = {w.lstrip("*").partition(".")[0] for w in wanted}
    for name in reversed(list(nodes)):
        read = {v.partition(".")[0] for n in nodes.values() for v in read_by(n)}
        tied = {v.partition(".")[0] for n in nodes.values() for v in n.get("tie", {}).values()}
        if name not in read | tied | used:
            del nodes[name]


def read_by(node: Mapping[str, Any]) -> list[str]:
    """The values that a node of a document names."""
    inputs = node.get("in", []) if isinstance(node, Mapping) else []
    return [inputs] if isinstance(inputs, str) else list(inputs.values() if isinstance(inputs, Mapping) else inputs)


def reductions(model: RandomModel) -> Iterator[RandomModel]:
    """Models that are smaller by one thing."""
    for name, value in model.settings.items():
        if value and name in ("freeze", "recompute", "ops", "fusion"):
            yield dataclasses.replace(model, settings={**model.settings, name: type(value)()})
        elif value is True:
            yield dataclasses.replace(model, settings={**model.settings, name: False})
    if model.micro_steps > 1:
        yield dataclasses.replace(model, micro_steps=1)
    document = model.document
    if len(document["loss"]) > 1:
        for term in document["loss"]:
            if term != "loss":
                rest = {k: v for k, v in document["loss"].items() if k != term}
                yield _without_unused(model, {**document, "loss": rest})
    for name, spec in document["graph"].items():
        if "block" in spec and spec.get("repeat", 1) > 1:
            fewer = {**document["graph"], name: {**spec, "repeat": 1}}
            yield dataclasses.replace(model, document={**document, "graph": fewer})
        for value in read_by(spec) if name not in ("y", "loss") else ():
            graph = {k: _renamed(v, name, value) for k, v in document["graph"].items() if k != name}
            yield _without_unused(model, {**document, "graph": graph})


def _renamed(spec: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    def one(value: str) -> str:
        return new if value.partition(".")[0] == old else value

    inputs = spec["in"]
    if isinstance(inputs, dict):
        return {**spec, "in": {k: one(v) for k, v in inputs.items()}}
    return {**spec, "in": one(inputs) if isinstance(inputs, str) else [one(v) for v in inputs]}


def _without_unused(model: RandomModel, document: dict[str, Any]) -> RandomModel:
    graph, blocks = dict(document["graph"]), document.get("block", {})
    drop_unused(graph, {"y", *document["loss"]})
    nodes = [*graph.values(), *(n for b in blocks.values() for n in b.values() if isinstance(n, dict))]
    used = {name: block for name, block in blocks.items() if name in {n.get("block") for n in nodes}}
    rest = {k: v for k, v in document.items() if k != "block"}
    return dataclasses.replace(model, document={**rest, "graph": graph, **({"block": used} if used else {})})
