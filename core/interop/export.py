"""Exports of models to other programs' formats, by the tables of a model's TOML that import uses, read backwards.

Plugins bring the formats; the parts that they share are here. The format's own reader reads an export back before it
gets its name, and an export that would describe another model than ours is refused: a fact without a place in the
format (another epsilon, another GELU) must not be dropped silently. The module knows no architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import BuildError, CheckpointError
from core.expr import unpadded
from core.graph import Graph
from core.graph.types import Node
from core.interop.fitting import Array, ModelMatch
from core.interop.opened import Opened
from core.kernels.tensors import check_range, encode
from core.registry import Registry


@dataclass(frozen=True)
class Export:
    """An export to write. weights: by our names, without padding. precision: one of the format's `precisions`.
    tokenizer: makes the model's, None for a model without one; a format that holds none does not call it."""

    opened: Opened
    graph: Graph
    weights: Mapping[str, Array]
    precision: str
    tokenizer: Callable[[], Any] = lambda: None

    def stored(self, label: str, values: Array) -> Array:
        """A tensor as a file holds it in `precision`: f32, f16, or bf16's bits as uint16, rounded to nearest even, of
        the same shape. Raises NumericsError, with `label`, for finite elements that would be infinity."""
        check_range(values, self.precision, label)
        return encode(values, self.precision, values.shape)


def prepare(opened: Opened, registry: Registry, precision: str, tokenizer: Callable[[], Any] = lambda: None) -> Export:
    """An Export of the weights at a path. Raises CheckpointError for weights that are not the model's."""
    graph = opened.source.build(registry, dict(opened.dims))
    return Export(opened, graph, opened.parameters(graph), precision, tokenizer)


def check_meaning(export: Export, registry: Registry, find: Callable[[], ModelMatch | None], format: str) -> None:
    """BuildError unless a reader of the export computes the same as our graph.

    find: the registered model that the format's reader finds in the export, None when no model answers: the
    model's own table is then all there is to go by.
    """
    name = export.graph.name
    try:
        twin = find()
    except CheckpointError as error:
        raise _other(name, format, f"cannot be read back: {error.message}") from None
    if twin is None:
        return
    theirs = twin.source.build(registry, twin.dims)
    if difference := _difference(export.graph, theirs):
        raise _other(name, format, f"would be read as {theirs.name}, where {difference}")


def _other(name: str, format: str, why: str) -> BuildError:
    return BuildError(
        f"model {name} cannot be written in {format}: the file {why}",
        hint="register this architecture from a plugin, with its own [hf] table",
    )


def _difference(ours: Graph, theirs: Graph) -> str:
    """The first difference in the computation of two graphs; "" when they do not."""
    a, b = ({node.name: _meaning(node) for node in graph.nodes} for graph in (ours, theirs))
    for name in (*a, *b):
        if name not in a or name not in b:
            return f"there is {'a' if name in b else 'no'} node {name}"
        for aspect, value in a[name].items():
            if b[name].get(aspect) != value:
                return f"{name} has {aspect} {b[name].get(aspect)!r}, here {value!r}"
    return "" if ours.logits == theirs.logits else f"{theirs.logits} are the logits, here {ours.logits}"


def _meaning(node: Node) -> dict[str, Any]:
    """The computation of a node as comparable text; the vocabulary's padding is left out."""
    attrs = {name: unpadded(value) if isinstance(value, int) else value for name, value in node.attrs.items()}
    return {"op": node.op.name, "inputs": node.inputs, "params": node.params, **attrs}
