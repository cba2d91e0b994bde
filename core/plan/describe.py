"""A plan in words: nodes with repeats folded, choices, and bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.graph import Node
from core.plan.choose import specs
from core.plan.steps import Plan
from core.words import cell


def node_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row a node: name, op, variant and its config, why, shape of its first output, parameters without padding."""
    rows = []
    owned = {p.name: p for p in plan.graph.parameters.values()}
    for node in plan.nodes:
        first = next(iter(node.outputs.values()))
        choice = plan.choices[node.name]
        rows.append(
            {
                "node": node.name,
                "op": node.op.name,
                "variant": choice.variant.name,
                "config": config_of(plan, node),
                "why": choice.why,
                "shape": [int(n) for n in plan.graph.values[first].shape],
                "parameters": sum(owned.pop(p).size for p in node.params.values() if p in owned),
            }
        )
    return rows


def folded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that differ in a repeat's number alone become one: `h.{0..11}.qkv`."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        pattern = re.sub(r"\.\d+\.", ".{}.", row["node"])
        key = (pattern, *(repr(row[k]) for k in ("op", "variant", "config", "why", "shape", "parameters")))
        groups.setdefault(key, []).append(row)
    out = []
    for key, members in groups.items():
        row = dict(members[0])
        if len(members) > 1:
            numbers = [int(re.findall(r"\.(\d+)\.", m["node"])[0]) for m in members]
            span = f"{numbers[0]}..{numbers[-1]}" if _contiguous(numbers) else ",".join(map(str, numbers))
            row["node"] = key[0].replace("{}", "{" + span + "}", 1)
            row["parameters"] *= len(members)
        out.append({**row, "count": len(members)})
    return out


def config_of(plan: Plan, node: Node) -> dict[str, Any]:
    """`t.config` of a node: its tiles, and other settings that the variant chooses by size. A run records it."""
    return plan.choices[node.name].config_for(specs(node, plan.graph, plan.precision))


def in_words(config: Mapping[str, Any]) -> str:
    """`TILE_I=128, chunk=16,384`"""
    return ", ".join(f"{name}={cell(value)}" for name, value in config.items())


def choice_of(row: Mapping[str, Any]) -> str:
    """A row's variant, with those settings of its config that are no macros of its kernels: these are lower-case."""
    own = {name: value for name, value in row["config"].items() if name.islower()}
    return f"{row['variant']} ({in_words(own)})" if own else row["variant"]


def _contiguous(numbers: Sequence[int]) -> bool:
    return list(numbers) == list(range(numbers[0], numbers[-1] + 1))


def fusions(plan: Plan) -> list[dict[str, Any]]:
    """Each fused op of the plan: name, how many nodes, and the pattern that it stands for."""
    rows: dict[str, dict[str, Any]] = {}
    for node in plan.nodes:
        if node.op.replaces:
            row = rows.setdefault(node.op.name, {"op": node.op.name, "count": 0, "replaces": node.op.replaces})
            row["count"] += 1
    return list(rows.values())
