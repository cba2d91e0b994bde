"""Fusion: nodes that match a fused op's `replaces` become one node.

A pattern is matched from its last statement backwards along the values. Each node belongs to one fused node at
most: the longest pattern is tried first, then the highest priority of its variants, then its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.errors import BuildError
from core.graph import Graph, Node
from core.op import Op, Statement

Bound = dict[str, str | None]  # a pattern's name -> value or parameter name; None for an absent optional one


@dataclass(frozen=True)
class FusionRules:
    """What fusion may touch.

    patterns: fused ops that have a variant which can run, with their own attrs from `[fuse]`.
    keep: values that are requested. named(node): whether the config names this node or its op, which keeps it apart.
    runs(node): whether some variant can run the fused node. apart: fused op -> the named ops that it would have taken.
    """

    patterns: Sequence[tuple[Op, Mapping[str, Any]]]
    keep: frozenset[str]
    named: Callable[[Node], bool]
    runs: Callable[[Node], bool]
    apart: dict[str, set[str]] = field(default_factory=dict)


def fuse(graph: Graph, nodes: list[Node], rules: FusionRules) -> list[Node]:
    """`nodes` with every match replaced by its fused node, in an order that respects dependencies."""
    for op, own in rules.patterns:
        anchor_op = op.statements[-1].op
        for anchor in [n for n in nodes if n.op.name == anchor_op]:
            if anchor not in nodes:
                continue
            makers = {value: n for n in nodes for value in n.outputs.values()}
            for bound, members in _matches(op, anchor, makers):
                fused = _fused_node(op, own, bound, members, graph, nodes, rules)
                if fused is None:
                    continue
                ordered = in_order([n for n in nodes if n not in members] + [fused], list(graph.inputs), nodes)
                if ordered is None or not rules.runs(fused):
                    continue
                if named := {n.op.name for n in members if rules.named(n)}:
                    rules.apart.setdefault(op.name, set()).update(named)
                    continue
                nodes = ordered
                break
    return nodes


def _matches(op: Op, anchor: Node, makers: Mapping[str, Node]) -> Iterator[tuple[Bound, list[Node]]]:
    """Every way to bind the pattern's names with `anchor` as its last statement."""
    statements = op.statements

    def go(index: int, bound: Bound, members: list[Node]) -> Iterator[tuple[Bound, list[Node]]]:
        if index < 0:
            yield bound, members
            return
        statement = statements[index]
        main = bound.get(statement.outputs[0])
        node = anchor if index == len(statements) - 1 else makers.get(main) if main is not None else None
        if node is None or node.op.name != statement.op or node in members:
            return
        for more in _bindings(statement, node):
            merged = dict(bound)
            if all(merged.setdefault(k, v) == v for k, v in more):
                yield from go(index - 1, merged, [node, *members])

    yield from go(len(statements) - 1, {}, [])


def _bindings(statement: Statement, node: Node) -> Iterator[list[tuple[str, str | None]]]:
    """Pairs (pattern name, value or parameter name) that make `statement` stand for `node`; none if it cannot."""
    if any(node.attrs.get(k) != v for k, v in statement.attrs.items()):
        return
    params = [p for p in node.op.params if p not in statement.attrs]
    inputs = list(node.op.inputs)
    orders = [inputs]
    if node.op.commutes:
        orders.append([inputs[1], inputs[0], *inputs[2:]])
    for order in orders:
        sources: list[str | None] = [node.inputs.get(r) for r in order] + [node.params.get(p) for p in params]
        while len(sources) > len(statement.arguments) and sources[-1] is None:
            sources.pop()  # absent trailing optionals need no name in the pattern
        if len(sources) == len(statement.arguments):
            outputs = list(node.outputs.values())[: len(statement.outputs)]
            yield [*zip(statement.arguments, sources, strict=True), *zip(statement.outputs, outputs, strict=False)]


def _fused_node(
    op: Op,
    own: Mapping[str, Any],
    bound: Bound,
    members: list[Node],
    graph: Graph,
    nodes: list[Node],
    rules: FusionRules,
) -> Node | None:
    """The node that stands for `members`, or None when the fusion is not allowed."""
    last = members[-1]
    made = {v for n in members for v in n.outputs.values()}
    given = {v for v in (bound.get(o) for o in op.outputs) if v is not None}
    inner = made - given
    used_outside = {v for n in nodes if n not in members for v in n.inputs.values()}
    if inner & (used_outside | rules.keep):
        return None
    carried = _carried_attrs(op, members)
    if carried is None:
        return None
    attrs: dict[str, Any] = {**carried, **own}
    inputs = {r: v for r in op.inputs if (v := bound.get(r)) is not None}
    params = {p: v for p in op.params if (v := bound.get(p)) is not None}
    outputs = {o: v for o in op.outputs if (v := bound.get(o)) is not None}
    for param, declared in op.params.items():
        if declared.optional:
            attrs[param] = param in params
        elif param not in params:
            return None
    where = f"{op.name} for {', '.join(n.name for n in members)}"
    try:
        settled = op.settle_attrs(attrs, graph.dims, where)
        shapes = {r: graph.values[v].shape for r, v in inputs.items()}
        dims = op.solve(shapes, settled, where)
        for param, name in params.items():
            op.param_patterns[param].unify(graph.parameters[name].shape, dims, where)
    except BuildError:
        return None
    parts = tuple(members)
    return replace(last, op=op, inputs=inputs, outputs=outputs, params=params, attrs=settled, dims=dims, parts=parts)


def _carried_attrs(op: Op, members: list[Node]) -> dict[str, Any] | None:
    """Attributes that the fused op takes from its nodes; None if a node has one that it cannot carry."""
    fixed = [statement.attrs for statement in op.statements]
    carried: dict[str, Any] = {}
    for node, constants in zip(members, fixed, strict=True):
        for key, value in node.attrs.items():
            default = node.op.attrs[key]
            if key in node.op.params or key in constants:
                continue
            if key in op.attrs:
                if carried.setdefault(key, value) != value:
                    return None
            elif isinstance(default, type):
                continue  # a required size, such as `features`: the parameter's shape implies it
            elif value != (default[0] if isinstance(default, tuple) else default):
                return None
    return carried


def in_order(nodes: list[Node], known: Sequence[str], like: list[Node]) -> list[Node] | None:
    """`nodes` so that each comes after what it reads, otherwise in the order of `like` (a fused node stands where
    its last member stood); None if there is a cycle."""
    position = {n.name: i for i, n in enumerate(like)}
    rest = sorted(nodes, key=lambda n: position[n.name])
    have, ordered = set(known), []
    while rest:
        ready = next((n for n in rest if all(v in have for v in n.inputs.values())), None)
        if ready is None:
            return None
        rest.remove(ready)
        ordered.append(ready)
        have.update(ready.outputs.values())
    return ordered
