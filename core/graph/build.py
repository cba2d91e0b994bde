"""A model document to a Graph: dims, then nodes, then shapes, then ties, init, loss.

Every stage reports all that it finds before the next one starts. Nothing is allocated.
"""

from __future__ import annotations

import fnmatch
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from core.errors import BuildError, UsageError, did_you_mean
from core.expr import described, evaluate, fill, trim
from core.graph.contract import bound_of, check_contents, check_padding, described_value, negative_inputs
from core.graph.dims import check_overrides, evaluate_dims
from core.graph.document import ModelDocument
from core.graph.draft import Draft, in_order
from core.graph.expand import Expander
from core.graph.init import check_shape, parameter_glob, settle
from core.graph.model_schema import ADAPT, OP_NODE, check_document
from core.graph.problems import Problems
from core.graph.types import Graph, Node, Parameter, Value
from core.op import Pattern
from core.roles import TARGETS

if TYPE_CHECKING:
    from core.registry import Registry

Shape = tuple[int, ...]


def build_graph(
    source: ModelDocument, registry: Registry, overrides: Mapping[str, Any], *, batch_free: bool = True
) -> Graph:
    """See ModelSource.build. batch_free: whether shapes of parameters are compared at other B and T."""
    problems = Problems()
    check_document(source, problems, registry)
    problems.finish()
    table: dict[str, Any] = source.document.get("dims", {})
    overrides = check_overrides(table, overrides, source.where())
    graph = _Builder(source, registry, overrides).build()
    if batch_free:
        _check_batch_free(graph, source, registry, overrides)
    return graph


class _Builder:
    def __init__(self, source: ModelDocument, registry: Registry, overrides: Mapping[str, Any]) -> None:
        self.source, self.registry = source, registry

        def place(dim: str) -> str:
            return f"dim {dim} of {source.where()}" if dim in overrides else source.where("dims", dim)

        self.dims = evaluate_dims({**source.document.get("dims", {}), **overrides}, overrides, place)
        self.problems = Problems()
        for name, size in self.dims.items():
            if min(size) < 0 if isinstance(size, tuple) else size < 0:
                message = f"{place(name)}: {name} is {size}, below zero; expected a size"
                if name in overrides:
                    raise UsageError(message)
                self.problems.add(source.where("dims", name), message)
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.parameters: dict[str, Parameter] = {}
        self.ties: list[_Tie] = []
        self.terms: dict[str, str] = {}
        self.own_loss: Mapping[str, Any] | None = None  # of adapters, in place of the document's
        self.own_init: Mapping[str, str] = {}
        self.own_logits: str | None = None
        self.absent: set[str] = set()  # parameters that nodes would have
        self.lost: set[str] = set()  # values whose node was reported

    def build(self) -> Graph:
        self._inputs()
        expander = Expander(self.source, self.registry, self.dims, self.problems)
        drafts = in_order(self._adapted(expander), self.problems)
        self.lost |= expander.lost
        self.absent |= expander.absent
        for draft in drafts:
            self._node(draft)
        self.problems.finish()
        self._resolve_ties()
        loss, logits = self._loss(expander.scope), self._logits(expander.scope)
        self._unused(drafts, {*loss, *([logits] if logits else [])})
        self.problems.finish()
        self._init()
        names, roles = self.source.document["inputs"], self.source.document.get("roles", {})
        negative = negative_inputs(self.nodes, names, roles.get(TARGETS, TARGETS))
        inputs = {name: replace(self.values[name], negative=name in negative) for name in names}
        return Graph(
            self.source.name,
            inputs,
            self.nodes,
            self.values,
            self.parameters,
            dict(self.dims),
            loss,
            logits,
            self.terms,
            self.source,
            frozenset(self.absent - self.parameters.keys()),
        )

    def _adapted(self, expander: Expander) -> list[Draft]:
        """The nodes, changed by the model's adapters."""
        drafts = expander.run()
        if ADAPT in self.source.document and not self.problems:
            from core.graph.adapting import adapted  # of models with adapters

            logits = self.source.document.get("logits")
            logits = expander.scope.get(logits, logits) if isinstance(logits, str) else None
            edit = adapted(self.source, self.registry, self.dims, drafts, logits, self.problems)
            self.own_loss, self.own_init, self.own_logits, drafts = edit.loss, edit.init, edit.logits, edit.drafts
        return drafts

    # --- values and nodes ------------------------------------------------------------------------------------------

    def _inputs(self) -> None:
        for name, text in self.source.document["inputs"].items():
            where = self.source.where("inputs", name)
            try:
                pattern = Pattern.parse(text, where)
                if pattern.leading:
                    raise BuildError(f'{where}: "{text}" has "..."; an input of the graph names its sizes')
                shape = pattern.shape(self.dims, where)
                if trim(shape) != shape:
                    raise BuildError(
                        f'{where}: "{text}" is {described(shape)}; a batch has contents in every place of an input',
                        hint="use the size itself in place of pad(...)",
                    )
                self.values[name] = Value(name, shape, pattern.dtype, bound_of(pattern, self.dims, where))
            except BuildError as error:
                self.problems.take(where, error)
                self.lost.add(name)

    def _node(self, draft: Draft) -> None:
        """Unify one node; on a problem, its outputs are lost, and their readers report nothing."""
        if not draft.sound or draft.op is None or any(v in self.lost for v in draft.inputs.values()):
            self.lost.update(draft.outputs.values())
            return
        try:
            self.nodes.append(self._settled(draft))
        except BuildError as error:
            self.problems.take(draft.where, error)
            self.lost.update(draft.outputs.values())

    def _settled(self, draft: Draft) -> Node:
        op, where = draft.op, f"{draft.where}, node {draft.name}"
        assert op is not None
        attrs_written = {k: v for k, v in draft.spec.items() if k not in OP_NODE}
        for key in attrs_written:
            if key not in op.attrs:
                keys = [*op.attrs, *OP_NODE]
                raise BuildError(
                    f'{where}: op "{op.name}" has no attribute "{key}"{did_you_mean(key, keys)}',
                    hint=f"it has: {', '.join(op.attrs) or 'none'}",
                )
        attrs = op.settle_attrs(attrs_written, draft.names, where)
        check_padding(draft, self.values, attrs, where)
        shapes = {role: self.values[value].shape for role, value in draft.inputs.items()}
        dims = self._solved(draft, shapes, attrs, where)
        outputs = draft.outputs
        for role, value in outputs.items():
            pattern = op.outputs[role].pattern
            shape = pattern.shape(dims, f"{where}.{role}")
            self.values[value] = Value(value, shape, pattern.dtype, bound_of(pattern, dims, where))
        params = self._params(draft, attrs, dims, where)
        return Node(draft.name, op, draft.inputs, outputs, params, attrs, dims, draft.where)

    def _solved(self, draft: Draft, shapes: dict[str, Shape], attrs: dict[str, Any], where: str) -> dict[str, Any]:
        """The node's dims; an error about an edge names both its ends and all shapes of inputs."""
        op = draft.op
        assert op is not None
        try:
            dims = op.solve(shapes, attrs, where)
            for role, value in draft.inputs.items():
                check_contents(self.values[value], op.inputs[role].pattern, dims, f"{where}.{role}")
        except BuildError as error:
            edges = "".join(
                f"\n    {role} ({op.inputs[role].pattern.text}) <- {value} {described_value(self.values[value])}"
                for role, value in draft.inputs.items()
            )
            raise BuildError(f"{error.message}{edges}", hint=error.hint) from None
        return dims

    # --- parameters ------------------------------------------------------------------------------------------------

    def _params(self, draft: Draft, attrs: dict[str, Any], dims: dict[str, Any], where: str) -> dict[str, str]:
        op = draft.op
        assert op is not None
        present = op.present_params(attrs)
        tie = draft.spec.get("tie", {})
        for role in tie:
            if role not in present:
                why = "it is switched off here" if role in op.params else f'op "{op.name}" has no such parameter'
                raise BuildError(f'{where}: "tie" names "{role}", but {why}{did_you_mean(role, present)}')
        self.absent.update(f"{draft.name}.{role}" for role in op.params if isinstance(draft.spec.get(role), str))
        names: dict[str, str] = {}
        for role, declared in present.items():
            names[role] = name = f"{draft.name}.{role}"
            shape = op.param_patterns[role].shape(dims, f"{where}.{role}")
            if role in tie:
                self.ties.append(_Tie(name, fill(tie[role], draft.names, where), shape, draft, role, names))
                continue
            if draft.owner:
                self.ties.append(_Tie(name, f"{draft.owner}.{role}", shape, draft, role, names))
                continue
            init = settle(declared.init, ChainMap(dims, dict(draft.names)), f"{where}.{role}")
            check_shape(init, shape, f"{where}.{role}")
            self.parameters[name] = Parameter(name, shape, init, declared.decay, draft.name, role)
        return names

    def _resolve_ties(self) -> None:
        """Give every tied role its owner's name. `tie` looks in its own block first, then further out."""
        sources: dict[str, str] = {}
        names = {*self.parameters, *(t.name for t in self.ties)}
        for tie in self.ties:
            candidates = [prefix + tie.source for prefix in tie.draft.prefixes]
            owner = next((c for c in candidates if c in names), None)
            if owner is None:
                from core.graph.build_faults import report_unknown_tie

                report_unknown_tie(tie.draft.where, tie.draft.name, tie.source, names, self.problems)
            else:
                sources[tie.name] = owner
        for tie in self.ties:
            if tie.name in sources:
                self._tie(tie, sources)

    def _tie(self, tie: _Tie, sources: Mapping[str, str]) -> None:
        where = f"{tie.draft.where}, node {tie.draft.name}"
        owner, way = sources[tie.name], [tie.name]
        while owner in sources and owner not in way:
            way.append(owner)
            owner = sources[owner]
        shape = self.parameters[owner].shape if owner in self.parameters else None
        if shape is not None and owner not in way:
            tie.names[tie.role] = owner
        both = [role for role, name in tie.names.items() if name == owner]
        if owner in way or len(both) > 1 or (shape is not None and _sizes(shape) != _sizes(tie.shape)):
            from core.graph.build_faults import report_tie

            report_tie(where, tie.draft.where, (tie.role, tie.shape), (owner, shape), way, both, self.problems)

    def _init(self) -> None:
        """Apply `[init]`: globs over parameter names, the last match wins. UsageError for one that matches nothing."""
        tied = {t.name: t.names[t.role] for t in self.ties}
        empty = Problems()
        nodes = {node.name: node for node in self.nodes} if self.own_init else {}
        for glob, rule in {**self.source.document.get("init", {}), **self.own_init}.items():
            where, pattern = self.source.where("init", glob), parameter_glob(glob)
            matches = {name: m for name in self.parameters if (m := pattern.fullmatch(name))}
            if not matches and not any(map(pattern.fullmatch, self.absent)):
                shared = [f"{n} is {tied[n]}, tied" for n in tied if pattern.fullmatch(n)][:1]
                hint = shared[0] if shared else "`false` instead of a rule takes an inherited glob away"
                empty.add(where, f"{where}: matches no parameter{did_you_mean(glob, self.parameters)}", hint)
            for name, match in matches.items():
                p, numbers = self.parameters[name], {key: int(n) for key, n in match.groupdict().items()}
                try:
                    local = nodes[p.node].dims if glob in self.own_init else {}
                    settled = settle(rule, {**self.dims, **local, **numbers}, f"{where}, {name}" if numbers else where)
                    check_shape(settled, p.shape, f"{where}, {name}")
                except BuildError as error:
                    self.problems.take(where, error)
                    break
                self.parameters[name] = Parameter(name, p.shape, settled, p.decay, p.node, p.role)
        self.problems.finish()
        empty.finish(UsageError)

    # --- the request ---------------------------------------------------------------------------------------------

    def _loss(self, scope: Mapping[str, str]) -> dict[str, float]:
        """Loss terms and their weights: names or globs over values, the last match wins."""
        declared = self.source.document.get("loss", {}) if self.own_loss is None else self.own_loss
        terms = {declared: 1.0} if isinstance(declared, str) else declared
        made = [v for v in self.values if v not in self.source.document["inputs"]]
        loss: dict[str, float] = {}
        for glob, weight in terms.items():
            where = self.source.where("loss", glob) if isinstance(declared, dict) else self.source.where("loss")
            matches = [v for v in made if fnmatch.fnmatchcase(v, glob)]
            if not matches and scope.get(glob) in made:
                matches = [scope[glob]]
            if not matches:
                self.problems.add(where, f'{where}: no value is called "{glob}"{did_you_mean(glob, made)}')
            try:
                number = float(evaluate(weight, self.dims, where))
            except BuildError as error:
                self.problems.take(where, error)
                continue
            for name in matches:
                if self.values[name].dtype != "acc":
                    self.problems.add(
                        where,
                        f'{where}: "{name}" {described_value(self.values[name])} is not a loss: its dtype is not acc',
                        'a loss term is the output of an op that declares it as ": acc"',
                    )
                loss[name], self.terms[name] = number, glob
        return loss

    def _logits(self, scope: Mapping[str, str]) -> str | None:
        name = self.own_logits or self.source.document.get("logits")
        if name is None:
            return None
        where = self.source.where("logits")
        value = name if name in self.values else scope.get(name)
        if value not in self.values or value in self.source.document["inputs"]:
            made = [v for v in self.values if v not in self.source.document["inputs"]]
            self.problems.add(where, f'{where}: no value is called "{name}"{did_you_mean(name, made)}')
            return None
        if self.values[value].dtype is not None:
            description = described_value(self.values[value])
            self.problems.add(
                where, f'{where}: "{name}" {description} is not an activation: logits have the activations\' dtype'
            )
        return value

    def _unused(self, drafts: Iterable[Draft], wanted: set[str]) -> None:
        """Report nodes and inputs that nothing reads. A node of a block counts as used if one repeat's is."""
        used = {v for n in self.nodes for v in n.inputs.values()} | wanted
        alive = {d.path for d in drafts if used.intersection(d.outputs.values())}
        unused = [draft for draft in drafts if draft.path not in alive]
        idle = [name for name in self.source.document["inputs"] if name not in used]
        if unused or idle:
            from core.graph.build_faults import report_unused

            report_unused(unused, {name: self.source.where("inputs", name) for name in idle}, self.problems)


class _Tie:
    """A pending parameter tie: the alias, the name given in the TOML, and the slot to fill with the owner."""

    def __init__(self, name: str, source: str, shape: Shape, draft: Draft, role: str, names: dict[str, str]) -> None:
        self.name, self.source, self.shape = name, source, shape
        self.draft, self.role, self.names = draft, role, names


def _sizes(shape: Shape) -> tuple[Shape, Shape]:
    return tuple(int(n) for n in shape), trim(shape)


def _check_batch_free(graph: Graph, source: ModelDocument, registry: Registry, overrides: Mapping[str, Any]) -> None:
    """Raise BuildError if a parameter's shape follows B or T: build again with others and compare.

    Both change at once first, in a way that keeps no sum, product or ratio of them; where that does not build, or
    shapes differ, one at a time, smaller or larger until the graph builds: T may be bounded by the learned positions.
    """
    now = {n: graph.dims[n] for n in ("B", "T") if isinstance(graph.dims.get(n), int)}
    if not now:
        return

    def built(dims: Mapping[str, int]) -> Graph | None:
        try:
            return _Builder(source, registry, {**overrides, **dims}).build()
        except (BuildError, UsageError):
            return None

    B, T = now.get("B", 1), now.get("T", 1)
    elsewhere = {"B": 4 * B + T, "T": T // 2 if T > 2 else 2 * T}
    both = built({dim: elsewhere[dim] for dim in now})
    if both is not None and _shapes(both) == _shapes(graph):
        return
    for dim, size in now.items():
        sizes = (other for other in (size // 2, size - 1, size + 1, 2 * size) if other >= 1)
        again = next((g for other in sizes if (g := built({dim: other})) is not None), None)
        if again is not None:
            _compare(graph, again, dim)


def _shapes(graph: Graph) -> dict[str, tuple[Shape, Shape]]:
    return {name: _sizes(p.shape) for name, p in graph.parameters.items()}


def _compare(graph: Graph, again: Graph, dim: str) -> None:
    shapes, others = _shapes(graph), _shapes(again)
    if shapes != others:
        from core.graph.build_faults import refuse_shapes

        refuse_shapes(graph, again, dim, [n for n in {**shapes, **others} if shapes.get(n) != others.get(n)])
