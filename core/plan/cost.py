"""FLOPs of a graph's matrix products, for utilisations and floors.

Two counts, because both are published and a utilisation depends on its count: `full` has every product of attention,
those included whose result the causal mask discards (PaLM's, nanoGPT's, llm.c's count); `needed` leaves those out. Both
take backward as twice forward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.expr import evaluate
from core.graph import Graph, Node


@dataclass(frozen=True)
class Flops:
    """FLOPs of forward and backward; per token in `per_token`."""

    full: float = 0.0
    needed: float = 0.0


def node_flops(node: Node, forward: bool = True, backward: bool = True) -> Flops:
    """FLOPs of a node's matrix products; of a fused one, those of the nodes that it replaces."""
    times = (1 if forward else 0) + (2 if backward else 0)
    full = needed = 0.0
    for part in node.parts or (node,):
        names = {**part.dims, "rows": math.prod(part.dims.get("...", ()))}
        full += float(evaluate(part.op.flops, names, part.where))
        needed += float(evaluate(part.op.needed_flops, names, part.where))
    return Flops(times * full, times * needed)


def per_token(graph: Graph, tokens: int) -> Flops:
    """FLOPs of a training step per token, of a graph that takes `tokens` of them at once."""
    return total([node_flops(node) for node in graph.nodes], tokens)


def total(parts: Sequence[Flops], share: int = 1) -> Flops:
    return Flops(sum(f.full for f in parts) / share, sum(f.needed for f in parts) / share)
