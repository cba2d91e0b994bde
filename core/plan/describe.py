"""A plan as text: nodes with repeats folded, choices, and bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.graph import Node
from core.plan.choose import specs
from core.plan.steps import Plan
from core.words import cell

FOLDED = ("op", "attributes", "variant", "config", "why", "shape", "parameters")  # the common cells of a node's rows


def node_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row a node: name, op, attributes, variant and its config, why, shape of its first output, parameters without
    padding."""
    rows = []
    owned = {p.name: p for p in plan.graph.parameters.values()}
    for node in plan.nodes:
        first = next(iter(node.outputs.values()))
        choice = plan.choices[node.name]
        rows.append(
            {
                "node": node.name,
                "op": node.op.name,
                "attributes": dict(node.attrs),
                "variant": choice.variant.name,
                "config": config_of(plan, node),
                "why": choice.why,
                "shape": [int(n) for n in plan.graph.values[first].shape],
                "parameters": sum(owned.pop(p).size for p in node.params.values() if p in owned),
            }
        )
    return rows


def folded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that differ in a repeat's number alone become one: `h.{0..11}.qkv`. `differs`: the attributes in which other
    repeats of the node differ from these."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    attributes: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        pattern = re.sub(r"\.\d+\.", ".{}.", row["node"])
        key = (pattern, *(repr(row[k]) for k in FOLDED))
        groups.setdefault(key, []).append(row)
        attributes.setdefault(pattern, []).append(row["attributes"])
    out = []
    for key, members in groups.items():
        row, others = dict(members[0]), attributes[key[0]]
        row["differs"] = {k: v for k, v in row["attributes"].items() if any(o.get(k, v) != v for o in others)}
        if len(members) > 1:
            numbers = [int(re.findall(r"\.(\d+)\.", m["node"])[0]) for m in members]
            span = f"{numbers[0]}..{numbers[-1]}" if _contiguous(numbers) else ",".join(map(str, numbers))
            row["node"] = key[0].replace("{}", "{" + span + "}", 1)
            row["parameters"] *= len(members)
        out.append({**row, "count": len(members)})
    return out


def op_of(row: Mapping[str, Any]) -> str:
    """A row's op, with those attributes that other repeats of the node have otherwise: `attention (window=1,024)`."""
    differs = {k: str(v).lower() if isinstance(v, bool) else v for k, v in row.get("differs", {}).items()}
    return f"{row['op']} ({in_words(differs)})" if differs else row["op"]


def config_of(plan: Plan, node: Node) -> dict[str, Any]:
    """`t.config` of a node: its tiles, and other settings that the variant chooses by size. A run records it."""
    return plan.choices[node.name].config_for(specs(node, plan.graph, plan.precision, plan.request.capacity))


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
    """Each fused op of the plan: name, number of nodes, and the pattern that it replaces."""
    rows: dict[str, dict[str, Any]] = {}
    for node in plan.nodes:
        if node.op.replaces:
            row = rows.setdefault(node.op.name, {"op": node.op.name, "count": 0, "replaces": node.op.replaces})
            row["count"] += 1
    return list(rows.values())
