"""What a graph's matrix products cost, in FLOPs, and what chips can do: for utilisations and floors.

Two counts, because both are published and a utilisation means nothing without its count: `full` has every product of
attention, the ones whose result the causal mask throws away included (PaLM's, nanoGPT's, llm.c's count); `needed`
leaves those out. Both take backward as twice forward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.dtypes import TF32, arithmetic
from core.expr import evaluate
from core.graph import Graph, Node


@dataclass(frozen=True)
class Flops:
    """Of forward and backward; per token in `per_token`."""

    full: float = 0.0
    needed: float = 0.0


def node_flops(node: Node, forward: bool = True, backward: bool = True) -> Flops:
    """FLOPs of a node's matrix products; of a fused one, those of the nodes that it stands for."""
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


def total(found: Sequence[Flops], share: int = 1) -> Flops:
    return Flops(sum(f.full for f in found) / share, sum(f.needed for f in found) / share)


@dataclass(frozen=True)
class Chip:
    """Peaks of a GPU as its maker publishes them, without sparsity: dense FLOP/s and bytes/s of its memory.

    f32 is the rate of ordinary f32 arithmetic; bf16 that of tensor cores which add in f32. TF32's is half of that on
    all of them.
    """

    f32: float
    bf16: float
    memory: float

    def peak(self, precision: str, tf32: bool = False) -> float | None:
        """FLOP/s of a precision; None where the chip does not have it, or it is not published. tf32: whether f32 may be
        multiplied as TF32."""
        if arithmetic(precision, tf32) == TF32 and self.bf16:
            return self.bf16 / 2
        return getattr(self, precision, 0.0) or None


# By what the driver calls them, without "NVIDIA" and "GeForce"; a name that is not here has no peaks rather than
# another chip's. From NVIDIA's data sheets and architecture white papers; on GeForce, tensor cores that add in f32.
CHIPS = {
    "A100-SXM4-40GB": Chip(19.5e12, 312e12, 1.555e12),
    "A100-PCIE-40GB": Chip(19.5e12, 312e12, 1.555e12),
    "A100-SXM4-80GB": Chip(19.5e12, 312e12, 2.039e12),
    "A100 80GB PCIe": Chip(19.5e12, 312e12, 1.935e12),
    "H100 80GB HBM3": Chip(66.9e12, 989.4e12, 3.352e12),
    "H100 PCIe": Chip(51.2e12, 756e12, 2.039e12),
    "H200": Chip(66.9e12, 989.4e12, 4.8e12),
    "B200": Chip(75e12, 2250e12, 8.0e12),
    "L40S": Chip(91.6e12, 362e12, 0.864e12),
    "RTX 2080": Chip(10.1e12, 0.0, 0.448e12),
    "RTX 2080 Ti": Chip(13.4e12, 0.0, 0.616e12),
    "RTX 3070": Chip(20.3e12, 40.6e12, 0.448e12),
    "RTX 3080": Chip(29.8e12, 59.5e12, 0.760e12),
    "RTX 3090": Chip(35.6e12, 71.2e12, 0.936e12),
    "RTX 3090 Ti": Chip(40.0e12, 80.0e12, 1.008e12),
    "RTX 4070": Chip(29.1e12, 58.3e12, 0.504e12),
    "RTX 4070 Ti": Chip(40.1e12, 80.2e12, 0.504e12),
    "RTX 4080": Chip(48.7e12, 97.5e12, 0.717e12),
    "RTX 4090": Chip(82.6e12, 165.2e12, 1.008e12),
    "RTX 5070": Chip(30.9e12, 61.7e12, 0.672e12),
    "RTX 5080": Chip(56.3e12, 112.6e12, 0.960e12),
    "RTX 5090": Chip(104.8e12, 209.5e12, 1.792e12),
}


def chip(name: str) -> Chip | None:
    """The chip with the name that its driver gives it, None when it is not in the table."""
    return CHIPS.get(name.removeprefix("NVIDIA ").removeprefix("GeForce "))
