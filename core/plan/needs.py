"""The distinct work of a plan: each variant with its sizes, attributes and tiles, nested ones included.

`core check --config` checks each of them, and a run looks up the verdicts on each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.op import Op, Variant
from core.plan.choose import Chooser, specs
from core.plan.steps import GENERATE, Plan
from core.roles import S, T
from core.verdicts import Sizes, largest, sizes_of


@dataclass(frozen=True)
class Need:
    """A variant at the sizes of one node or more.

    example: shapes by input name and attributes, in the form of an op's examples. config: tiles. nodes: the names of
    those that are alike; for a nested launch, its op and shapes. why: the source of the choice. decodes: whether it
    changes a decoding state.
    """

    op: Op
    variant: Variant
    dtype: str
    example: Mapping[str, Any]
    sizes: Sizes
    config: Mapping[str, Any]
    why: str
    nodes: tuple[str, ...] = field(default=(), compare=False)
    decodes: bool = False

    @property
    def name(self) -> str:
        return f"{self.op.name}.{self.variant.name}"

    @property
    def key(self) -> str:
        """The same for needs that differ in their nodes alone."""
        shown = {name: list(v) if isinstance(v, tuple) else v for name, v in self.example.items()}
        return f"{self.name} {self.dtype} {json.dumps([shown, dict(self.config)], sort_keys=True, default=str)}"


def needs_of(plan: Plan, chooser: Chooser) -> list[Need]:
    """The distinct needs of a plan in the order of its nodes, then those of the nested launches recorded so far."""
    needs: dict[str, Need] = {}
    for need in (*_of_nodes(plan), *_nested(chooser)):
        need_before = needs.get(need.key)
        nodes = (*(need_before.nodes if need_before else ()), *need.nodes)
        needs[need.key] = Need(**{**vars(need), "nodes": nodes})
    return list(needs.values())


def sizes_by_choice(needs: list[Need]) -> dict[tuple[str, str], dict[str, int]]:
    """(op, variant) -> the largest size of each dim among its needs."""
    names = {(n.op.name, n.variant.name) for n in needs}
    return {name: largest(n.sizes for n in needs if (n.op.name, n.variant.name) == name) for name in names}


def _of_nodes(plan: Plan) -> Iterator[Need]:
    for node in plan.nodes:
        choice, op = plan.choices[node.name], node.op
        dims = dict(node.dims)
        decodes = plan.request.kind == GENERATE and bool(op.state)
        if decodes:
            dims |= {S: plan.request.capacity} | ({T: plan.request.capacity} if T in dims else {})
        shapes = {role: op.inputs[role].pattern.shape(dims, f"{node.name}.{role}") for role in node.inputs}
        example = {**shapes, **{k: v for k, v in node.attrs.items() if k in op.attrs}}
        example |= params_of(op, dims, node.params)
        t = specs(node, plan.graph, plan.precision, plan.request.capacity)
        config = choice.config_for(t)
        yield Need(
            op, choice.variant, plan.precision, example, sizes_of(op, dims), config, choice.why, (node.name,), decodes
        )


def _nested(chooser: Chooser) -> Iterator[Need]:
    for place, taken in chooser.nested.items():
        op, choice, dims = taken.op, taken.choice, taken.dims
        example: dict[str, Any] = {name: shape for name, shape in taken.shapes.items() if name in op.inputs}
        example |= {name: dims[name] for name in op.attrs} | params_of(
            op, dims, [n for n in taken.shapes if n in op.params]
        )
        config = dict(choice.config or {})
        yield Need(op, choice.variant, chooser.precision, example, sizes_of(op, dims), config, choice.why, (place,))


def params_of(op: Op, dims: Mapping[str, Any], present: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the params whose sizes neither an input nor an attribute gives."""
    names = {token for slot in op.inputs.values() for token in slot.pattern.tokens} | set(op.attrs)
    shapes = {}
    for name in present:
        pattern = op.param_patterns[name]
        if any(token.isidentifier() and token not in names for token in pattern.tokens) and name not in op.attrs:
            shapes[name] = pattern.shape(dims, f"{op.name}.{name}")
    return shapes
