"""The graph as rows in the order of its TOML: layers, the residual stream, and the variant of each node."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from core.graph import Graph, Node
from core.plan import Plan
from core.plan.way import node_that_runs, toml_line
from core.registry import Registry
from core.registry.lookup import REFERENCE
from core.view.private import short_place

LAYER = re.compile(r"(.*?\.\d+)\..+")


def layer_of(name: str) -> str:
    """`h.3` for a node `h.3.fc`; "" for one outside of layers."""
    match = LAYER.fullmatch(name)
    return match[1] if match else ""


def passing(registry: Registry) -> Callable[[Node], list[str]]:
    """A node's input values whose gradient is that of its one output, by its reference's `alias`."""

    def passed(node: Node) -> list[str]:
        reference = registry.variants.get(node.op.name, {}).get(REFERENCE)
        alias = reference.alias if reference is not None and len(node.outputs) == 1 else {}
        return [value for role, value in node.inputs.items() if f"d{role}" in alias]

    return passed


def sums_of(graph: Graph, passed: Callable[[Node], list[str]]) -> set[str]:
    """The nodes that hand their gradient on to several inputs: junctions of the residual stream."""
    return {node.name for node in graph.nodes if len(passed(node)) > 1}


def stream_of(graph: Graph, sums: set[str]) -> set[str]:
    """The values of the residual stream: those of sums, and their summands that are read elsewhere too."""
    readers = Counter(value for node in graph.nodes for value in node.inputs.values())
    junctions = [node for node in graph.nodes if node.name in sums]
    made = {value for node in junctions for value in node.outputs.values()}
    carried = {v for node in junctions for v in node.inputs.values() if v in made or readers[v] > 1}
    return made | carried if carried else set()


def node_row(plan: Plan, node: Node, stream: set[str], sums: set[str]) -> dict[str, Any]:
    """A node without its tensors: names, its line of TOML, and the node of the plan that ran for it.

    runs: that node, "" where none ran; fused: the op into which it was fused, or "".
    """
    runs = node_that_runs(plan, node)
    variant = plan.choices[runs.name].variant if runs is not None else None
    where, _, text = toml_line(node).partition("  ")
    return {
        "name": node.name,
        "op": node.op.name,
        "layer": layer_of(node.name),
        "toml": text,
        "where": short_place(where),
        "stream": not stream.isdisjoint(node.outputs.values()),
        "sum": node.name in sums,
        "runs": runs.name if runs is not None else "",
        "fused": runs.op.name if runs is not None and runs.op is not node.op else "",
        "variant": f"{variant.op}.{variant.name}" if variant is not None else "",
        "why": plan.choices[runs.name].why if runs is not None else "",
        "shape": [int(n) for n in plan.graph.values[next(iter(node.outputs.values()))].shape],
    }
