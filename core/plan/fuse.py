"""The second pass, fusion: nodes that match a fused op's `replaces` become one node.

A pattern is matched from its last statement backwards along the values. Each node belongs to one fused node at
most: the longest pattern is tried first, then the highest priority of its variants, then its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.errors import BuildError, UsageError
from core.graph import Graph, Node
from core.graph.padding import padded_attribute, padded_input, padded_parameter
from core.op import Op, Statement
from core.plan.choose import Chooser
from core.plan.live import Live
from core.plan.steps import TRAIN, Refused, Request

Bound = dict[str, str | None]  # a pattern's name -> value or parameter name; None for an absent optional one


@dataclass(frozen=True)
class FusionRules:
    """The rules of fusion: ops that it may form, and nodes that it must leave.

    patterns: fused ops that have a variant which can run, with their own attrs from `[fuse]`.
    keep: values that are requested. named(node): whether the config names this node or its op, which keeps it out.
    why_not(node): why no variant can run the fused node; None when one can. blocked: fused op -> the named ops that it
    would have taken.
    """

    patterns: Sequence[tuple[Op, Mapping[str, Any]]]
    keep: frozenset[str]
    named: Callable[[Node], bool]
    why_not: Callable[[Node], str | None]
    blocked: dict[str, set[str]] = field(default_factory=dict)


def fuse(graph: Graph, request: Request, live: Live, chooser: Chooser) -> tuple[list[Node], dict[str, set[str]]]:
    """The live nodes with every match replaced by its fused node, and fused op -> the ops that the config keeps out.

    UsageError where the config sets something of a fused op, and no nodes of a training plan become one.
    """
    recompute = set(request.recompute)

    def named(node: Node) -> bool:
        return node.op.name in recompute or chooser.explicit(node, request.kind) is not None

    def why_not(node: Node) -> str | None:
        if chooser.explicit(node, request.kind) is not None:
            return None
        try:
            chooser.choose(node, graph, request, live.differentiated(node))
        except Refused:
            raise
        except BuildError as error:
            return error.message
        return None

    rules = FusionRules(_patterns(request, chooser), live.wanted, named, why_not)
    nodes = fused_nodes(graph, live.nodes, rules)
    if request.kind == TRAIN and (request.fusion or request.recompute):
        from core.plan.fuse_attributes import check_fused

        check_fused(graph, request, nodes, rules.blocked, chooser)
    if request.kind == TRAIN and chooser.settings.nodes:
        from core.plan.named_variants import check_applied

        check_applied(chooser.registry, chooser.settings.nodes, nodes)
    return nodes, rules.blocked


def _patterns(request: Request, chooser: Chooser) -> list[tuple[Op, Mapping[str, Any]]]:
    """Fused ops that may be tried, with their own attrs from `[fuse]`, in the order in which they are tried."""

    def rank(op: Op) -> tuple[int, int, str]:
        best = max((v.priority for v in chooser.candidates(op)), default=-1)
        return -len(op.statements), -best, op.name

    patterns: list[tuple[Op, Mapping[str, Any]]] = []
    for op in sorted((o for o in chooser.registry.ops.values() if o.replaces), key=rank):
        setting = request.fusion.get(op.name, True)
        if setting is not False and chooser.candidates(op):
            patterns.append((op, setting if isinstance(setting, Mapping) else {}))
    return patterns


# --- matching ----------------------------------------------------------------------------------------------------


def fused_nodes(graph: Graph, nodes: list[Node], rules: FusionRules) -> list[Node]:
    """`nodes` with every match replaced by its fused node, in an order that respects dependencies."""
    for op, own in rules.patterns:
        anchor_op = op.statements[-1].op
        for anchor in [n for n in nodes if n.op.name == anchor_op]:
            if anchor not in nodes:
                continue
            makers = {value: n for n in nodes for value in n.outputs.values()}
            for bound, members in _matches(op, anchor, makers):
                match = Match(op, own, bound, members, graph, nodes, rules)
                fused = match.fused(own)
                if fused is None:
                    continue
                ordered = in_order([n for n in nodes if n not in members] + [fused], list(graph.inputs), nodes)
                if ordered is None or not match.runs(fused):
                    continue
                if named := {n.op.name for n in members if rules.named(n)}:
                    rules.blocked.setdefault(op.name, set()).update(named)
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
    """Pairs (pattern name, value or parameter name) that match `statement` with `node`; none if it does not match."""
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


@dataclass(frozen=True)
class Match:
    """Nodes of a graph, `members`, that match the pattern of a fused op; `bound` has the pattern's names. own: the
    op's attributes in `[fuse]`."""

    op: Op
    own: Mapping[str, Any]
    bound: Bound
    members: list[Node]
    graph: Graph
    nodes: list[Node]
    rules: FusionRules

    def fused(self, own: Mapping[str, Any]) -> Node | None:
        """The node that replaces `members`, with these attributes of its own; None where the fusion is not allowed."""
        op, bound, members = self.op, self.bound, self.members
        if self._hides_a_value():
            return None
        attrs = _carried_attrs(op, members)
        if attrs is None:
            return None
        inputs = {r: v for r in op.inputs if (v := bound.get(r)) is not None}
        params = {p: v for p in op.params if (v := bound.get(p)) is not None}
        outputs = {o: v for o in op.outputs if (v := bound.get(o)) is not None}
        for param, declared in op.params.items():
            if declared.optional:
                attrs[param] = param in params
            elif param not in params:
                return None
        if len(set(params.values())) < len(params):
            return None  # tied parts have one gradient to add to; a node has a gradient for each of its parameters
        shapes = {r: self.graph.values[v].shape for r, v in inputs.items()}
        weights = {p: self.graph.parameters[name].shape for p, name in params.items()}
        if padded_input(op, shapes) or padded_parameter(op, weights) or padded_attribute(op, attrs):
            return None
        try:
            settled, dims = self._settled(attrs, shapes, weights)
        except BuildError:
            return None
        if own:
            try:
                settled, dims = self._settled({**attrs, **own}, shapes, weights)
            except BuildError as error:
                raise UsageError(f"{_line(op, own)}: {error.message}", hint=error.hint) from None
        parts = tuple(members)
        return replace(
            members[-1], op=op, inputs=inputs, outputs=outputs, params=params, attrs=settled, dims=dims, parts=parts
        )

    def _hides_a_value(self) -> bool:
        """Whether another node needs, or a caller has requested, a value that the fused node would not write."""
        made = {v for n in self.members for v in n.outputs.values()}
        inner = made - {self.bound.get(output) for output in self.op.outputs}
        used_outside = {v for n in self.nodes if n not in self.members for v in n.inputs.values()}
        return bool(inner & (used_outside | self.rules.keep))

    def _settled(
        self, attrs: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, tuple[int, ...]]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Attributes and dims of a fused node. BuildError where its op does not take them."""
        where = f"{self.op.name} for {', '.join(n.name for n in self.members)}"
        settled = self.op.settle_attrs(attrs, self.graph.dims, where)
        dims = self.op.solve(shapes, settled, where)
        for param, shape in weights.items():
            self.op.param_patterns[param].unify(shape, dims, where)
        return settled, dims

    def runs(self, fused: Node) -> bool:
        """Whether a variant can run the fused node. UsageError where the attributes of `[fuse]` keep all from it."""
        why = self.rules.why_not(fused)
        if why is not None and self.own:
            plain = self.fused({})
            if plain is not None and self.rules.why_not(plain) is None:
                raise UsageError(f"{_line(self.op, self.own)}: {why}", hint="without it, the nodes would be fused")
        return why is None


def _line(op: Op, own: Mapping[str, Any]) -> str:
    return f"[fuse] {op.name} = {{ {', '.join(f'{k} = {v!r}' for k, v in own.items())} }}"


def check_fusion(fusion: Mapping[str, Any], ops: Mapping[str, Op], where: Callable[[str], str]) -> None:
    """UsageError for a name in `[fuse]` that is no fused op, or an attribute that is not its own or of another type.

    where: the place of a key such as "fuse.head_loss.chunk".
    """
    if fusion:
        from core.plan.fuse_attributes import check_settings

        check_settings(fusion, ops, where)


# --- attributes ----------------------------------------------------------------------------------------------------


def _carried_attrs(op: Op, members: list[Node]) -> dict[str, Any] | None:
    """Attributes that the fused op takes from its nodes; None if a node has one that it cannot carry."""
    fixed = [statement.attrs for statement in op.statements]
    carried: dict[str, Any] = {}
    for node, constants in zip(members, fixed, strict=True):
        for key, value in node.attrs.items():
            if key in node.op.params or key in constants:
                continue
            if key in op.attrs:
                if carried.setdefault(key, value) != value:
                    return None
            elif isinstance(node.op.attrs[key], type):
                if not any(key in pattern.tokens for pattern in node.op.param_patterns.values()):
                    return None
                # else a required size, such as `features`: the parameter's shape implies it
            elif value != node.op.default_of(key):
                return None
    return carried


def in_order(nodes: list[Node], available: Sequence[str], like: list[Node]) -> list[Node] | None:
    """`nodes` so that each comes after its inputs, otherwise in the order of `like` (a fused node stands where
    its last member stood); None if there is a cycle."""
    position = {n.name: i for i, n in enumerate(like)}
    rest = sorted(nodes, key=lambda n: position[n.name])
    have, ordered = set(available), []
    while rest:
        ready = next((n for n in rest if all(v in have for v in n.inputs.values())), None)
        if ready is None:
            return None
        rest.remove(ready)
        ordered.append(ready)
        have.update(ready.outputs.values())
    return ordered
