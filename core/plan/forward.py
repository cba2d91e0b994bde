"""The forward half of a plan: each node's launcher in order, on new buffers for its outputs and saved tensors."""

from __future__ import annotations

from core.graph import Node
from core.plan.builder import Builder


def forward(builder: Builder) -> None:
    """Append the forward of every node but those that compute loss and gradient in one launch, in backward."""
    builder.one_pass = {node.name for node in builder.nodes if _in_one_pass(builder, node)}
    for node in builder.nodes:
        if node.name not in builder.one_pass:
            run_forward(builder, node, "forward")


def run_forward(builder: Builder, node: Node, kind: str) -> None:
    """Append a node's forward launcher. kind: "forward", or "recompute" within backward."""
    variant = builder.choices[node.name].variant
    tensors = builder.values_read(node)
    tensors |= builder.new_outputs(node) | builder.new_saved(node, variant) | builder.extras(node, variant)
    builder.step(kind, node, variant, tensors)


def _in_one_pass(builder: Builder, node: Node) -> bool:
    """Whether a variant with `forward_backward` may take this node: all of its outputs are loss terms, read nowhere."""
    outputs = set(node.outputs.values())
    return (
        builder.live.differentiated(node)
        and builder.choices[node.name].variant.has_forward_backward
        and outputs <= set(builder.graph.loss)
        and not any(outputs & set(n.inputs.values()) for n in builder.nodes)
    )
