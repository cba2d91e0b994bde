"""The weights by which a model mixes tokens and experts, by node, from the references of its ops.

`Reference.maps` computes them from the inputs that forward gave each node. Dropout is off.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.engine import Engine
from core.engine.batch import Array, Batch, dims_of
from core.graph import Node
from core.op import Reference, make_tensors
from core.registry import REFERENCE

USES = ("start", "counts", "key", "step")  # None outside of decoding and training


def mapped_nodes(engine: Engine) -> list[tuple[Node, Reference]]:
    """The nodes whose op's reference gives maps, in the graph's order."""
    variants = engine.registry.variants
    pairs = [(node, variants[node.op.name].get(REFERENCE)) for node in engine.graph.nodes]
    return [(node, held) for node, held in pairs if isinstance(held, Reference) and held.has_maps]


def weight_maps(engine: Engine, batch: Batch) -> Iterator[tuple[str, str, Array]]:
    """(node, name, weights) of a batch, one by one: (B, heads, T, T) of queries over keys, (..., N) of tokens over
    experts, f32 or f64."""
    graph = engine.graph_for(dims_of(batch, engine.graph, engine.input_dims))
    sized = {node.name: node for node in graph.nodes}
    chosen = [(sized[n.name], held) for n, held in mapped_nodes(engine)]
    made = list(dict.fromkeys(v for node, _ in chosen for v in node.inputs.values() if v not in batch))
    values = {**batch, **(dict(zip(made, engine.values(batch, made), strict=True)) if made else {})}
    parameters = engine.parameters()
    for node, held in chosen:
        tensors: dict[str, Array | None] = dict.fromkeys((*node.op.inputs, *node.op.params, *node.op.state, *USES))
        tensors |= {role: np.asarray(values[value]) for role, value in node.inputs.items()}
        tensors |= {role: parameters[name] for role, name in node.params.items()}
        yield from ((node.name, name, weights) for name, weights in held.maps(make_tensors(node.dims, tensors)).items())
