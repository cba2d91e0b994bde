"""Blocks unrolled and names resolved: a model document to a flat list of drafts, each an op with its inputs named.

Shapes are not known here. A draft whose op or inputs are wrong is reported and marked, so that the drafts that depend
on it are not reported as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import BuildError, did_you_mean
from core.expr import evaluate
from core.graph.document import ModelDocument
from core.graph.model_schema import as_list
from core.graph.problems import Problems
from core.op import Op

if TYPE_CHECKING:
    from core.registry import Registry

MOST_NODES = 10_000  # beyond this a repeat is a slip of the pen


@dataclass
class Draft:
    """A node before its shapes are known.

    path: where it is written, ("block", "layer", "qkv"). prefixes: of its own scope first, "" last: where `tie`
    looks. op: None when the op is unknown. sound: whether its op and inputs were found.
    """

    name: str
    path: tuple[str, ...]
    spec: Mapping[str, Any]
    prefixes: tuple[str, ...]
    where: str
    op: Op | None
    inputs: dict[str, str] = field(default_factory=dict)
    sound: bool = True

    @property
    def outputs(self) -> dict[str, str]:
        """role -> value name: the first output has the node's name, the others `node.role`."""
        roles = list(self.op.outputs) if self.op else []
        return {role: self.name if i == 0 else f"{self.name}.{role}" for i, role in enumerate(roles)}


class _TooMany(Exception):
    """The graph passed MOST_NODES: nothing else is worth reporting."""


class Expander:
    """Unrolls `[graph]`. After `run`, `drafts` are in file order and `scope` holds the names that `[graph]` knows."""

    def __init__(self, source: ModelDocument, registry: Registry, dims: Mapping[str, Any], problems: Problems) -> None:
        self.source, self.registry, self.dims, self.problems = source, registry, dims, problems
        self.inputs = {name: name for name in source.document["inputs"]}
        self.blocks: Mapping[str, Any] = source.document.get("block", {})
        self.scope: dict[str, str] = dict(self.inputs)
        self.lost: set[str] = set()  # values of nodes that were reported: what names them is not reported again
        self.count = 0
        self.ops: dict[str, Op | None] = {}

    def run(self) -> list[Draft]:
        try:
            return self._table(("graph",), self.source.document["graph"], ("",), self.scope, ())
        except _TooMany:
            return []

    def _table(
        self,
        table: tuple[str, ...],
        nodes: Mapping[str, Any],
        prefixes: tuple[str, ...],
        scope: dict[str, str],
        inside: tuple[str, ...],
    ) -> list[Draft]:
        """The drafts of one table in file order; `scope` (name here -> value) is filled with what it makes."""
        made: dict[str, list[Draft]] = {}
        waiting: dict[str, Any] = {}
        for key, spec in nodes.items():
            if "block" in spec:
                waiting[key] = spec
            else:
                made[key] = [self._draft((*table, key), spec, prefixes, scope)]
        while waiting:
            # A block's inputs must have names before it is unrolled; ops have theirs already, blocks when unrolled.
            ready = [k for k, s in waiting.items() if not {_head(n) for n in as_list(s["in"])} & waiting.keys()]
            if not ready:
                key = next(iter(waiting))
                where = self.source.where(*table, key)
                self.problems.add(where, f"{where}: the blocks {' and '.join(waiting)} wait for one another")
                self._lose(scope, *((k, prefixes[0] + k) for k in waiting))
                break
            for key in ready:
                made[key] = self._block((*table, key), waiting.pop(key), prefixes, scope, inside)
        for key, drafts in made.items():
            if "block" not in nodes[key]:
                self._connect(drafts[0], scope, table)
        return [draft for key in nodes for draft in made.get(key, [])]

    def _lose(self, scope: dict[str, str], *pairs: tuple[str, str]) -> None:
        for name, value in pairs:
            scope[name] = value
            self.lost.add(value)

    # --- ops -----------------------------------------------------------------------------------------------------

    def _draft(
        self, path: tuple[str, ...], spec: Mapping[str, Any], prefixes: tuple[str, ...], scope: dict[str, str]
    ) -> Draft:
        self._count(1, path)
        key, where = path[-1], self.source.where(*path)
        draft = Draft(prefixes[0] + key, path, spec, prefixes, where, self._op(spec["op"], where))
        if draft.op is None or not draft.op.outputs:
            if draft.op is not None:
                self.problems.add(where, f'{where}: op "{draft.op.name}" has no output: it is no node of a model')
            draft.sound = False
            self._lose(scope, (key, draft.name))
        for role, value in draft.outputs.items():
            scope[key if value == draft.name else f"{key}.{role}"] = value
        return draft

    def _op(self, name: str, where: str) -> Op | None:
        if name not in self.ops:
            self.ops[name] = None
            try:
                self.ops[name] = self.registry.op(name, where)
            except BuildError as error:
                self.problems.take(where, error)
        return self.ops[name]

    def _count(self, more: int, path: tuple[str, ...]) -> None:
        self.count += more
        if self.count > MOST_NODES:
            where = self.source.where(*path)
            self.problems.add(where, f"{where}: the graph has more than {MOST_NODES:,} nodes")
            raise _TooMany

    def _connect(self, draft: Draft, scope: Mapping[str, str], table: tuple[str, ...]) -> None:
        """Resolve the inputs of a draft: `in` is a name, a list in schema order, or a table by input's name."""
        if draft.op is None:
            return
        inputs = draft.spec.get("in", [])
        roles = list(draft.op.inputs)
        if isinstance(inputs, dict):
            pairs = list(inputs.items())
            for role in inputs:
                if role not in roles:
                    self._unsound(draft, f'"in" has "{role}", but {_takes(draft.op)}{did_you_mean(role, roles)}')
        else:
            names = as_list(inputs)
            if len(names) > len(roles):
                self._unsound(draft, f'"in" has {len(names)} names, but {_takes(draft.op)}')
            pairs = list(zip(roles, names, strict=False))
        for role, name in pairs:
            if role in roles:
                value = self._resolve(name, scope, table, draft.where, f"{draft.name}.{role}")
                draft.sound &= value is not None and value not in self.lost
                draft.inputs[role] = value or ""
        missing = [r for r, slot in draft.op.inputs.items() if not slot.optional and r not in draft.inputs]
        if missing and draft.sound:
            self._unsound(draft, f'{_takes(draft.op)}; "in" gives no {" and no ".join(missing)}')
        if not draft.sound:
            self.lost.update(draft.outputs.values())

    def _unsound(self, draft: Draft, message: str) -> None:
        self.problems.add(draft.where, f"{draft.where}, node {draft.name}: {message}")
        draft.sound = False

    def _resolve(
        self, name: str, scope: Mapping[str, str], table: tuple[str, ...], where: str, subject: str
    ) -> str | None:
        if name in scope:
            return scope[name]
        if _head(name) in scope and scope[_head(name)] in self.lost:
            return scope[_head(name)]
        from core.graph.expand_faults import unknown_input

        gone = self.source.removed.get((*table, name), "")
        self.problems.add(where, *unknown_input(f"{where}, {subject}", name, ".".join(table), scope, gone))
        return None

    # --- blocks --------------------------------------------------------------------------------------------------

    def _block(
        self,
        path: tuple[str, ...],
        spec: Mapping[str, Any],
        prefixes: tuple[str, ...],
        scope: dict[str, str],
        inside: tuple[str, ...],
    ) -> list[Draft]:
        """Unroll one block node: `h` gives `h.0.qkv`, `h.1.qkv`, ...; what `out` names goes into the next `in`."""
        key, name, where = path[-1], spec["block"], self.source.where(*path)
        self._lose(scope, (key, prefixes[0] + key))  # until it is known
        carried = [self._resolve(n, scope, path[:-1], where, prefixes[0] + key) for n in as_list(spec["in"])]
        repeat = self._check_block(path, spec, inside)
        if repeat is None or None in carried:
            return []
        body = self.blocks[name]
        takes, gives = as_list(body["in"]), as_list(body["out"])
        nodes = {k: v for k, v in body.items() if k not in ("in", "out")}
        drafts: list[Draft] = []
        for i in range(repeat):
            self._count(1 if not nodes else 0, path)  # an empty block still takes time
            inner: dict[str, str] = {**self.inputs, **{t: c for t, c in zip(takes, carried, strict=True) if c}}
            deeper = (f"{prefixes[0]}{key}.{i}.", *prefixes)
            drafts += self._table(("block", name), nodes, deeper, inner, (*inside, name))
            out = self.source.where("block", name, "out")
            carried = [self._resolve_out(o, inner, name, out) for o in gives]
            if None in carried:
                return drafts
        del scope[key]
        for i, (give, value) in enumerate(zip(gives, carried, strict=True)):
            scope[f"{key}.{give}"] = value or ""
            if i == 0:
                scope[key] = value or ""
        return drafts

    def _resolve_out(self, name: str, scope: Mapping[str, str], block: str, where: str) -> str | None:
        if name not in scope:
            from core.graph.expand_faults import unknown_output

            gone = self.source.removed.get(("block", block, name), "")
            self.problems.add(where, *unknown_output(where, name, scope, gone))
        return scope.get(name)

    def _check_block(self, path: tuple[str, ...], spec: Mapping[str, Any], inside: tuple[str, ...]) -> int | None:
        """The number of repeats of the block; None, and a problem, if it cannot be unrolled."""
        name, where = spec["block"], self.source.where(*path)
        try:
            repeat = evaluate(spec.get("repeat", 1), self.dims, f'{where} "repeat"')
        except BuildError as error:
            self.problems.take(where, error)
            return None
        body = self.blocks.get(name) if name not in inside else None
        if body is not None and isinstance(repeat, int) and 1 <= repeat <= MOST_NODES:
            takes, gives, passed = (len(as_list(names)) for names in (body["in"], body["out"], spec["in"]))
            if passed == takes and (repeat == 1 or gives == takes):
                return repeat
        from core.graph.expand_faults import why_not_unrolled

        message = why_not_unrolled(name, spec, repeat, self.blocks, inside, MOST_NODES)
        self.problems.add(where, f"{where}: {message}")
        return None


def _head(name: str) -> str:
    """The node that a name belongs to: `router.balance` -> `router`."""
    return name.partition(".")[0]


def _takes(op: Op) -> str:
    roles = ", ".join(f"{r} (optional)" if s.optional else r for r, s in op.inputs.items())
    return f'op "{op.name}" takes {roles or "no input"}'


# --- order -------------------------------------------------------------------------------------------------------


def in_order(drafts: Sequence[Draft], problems: Problems) -> list[Draft]:
    """`drafts` so that each comes after what it reads, otherwise in file order. A cycle is reported and shown."""
    maker = {value: i for i, d in enumerate(drafts) for value in d.outputs.values()}
    needs = [{maker[v] for v in d.inputs.values() if v in maker} for d in drafts]
    readers: list[list[int]] = [[] for _ in drafts]
    for i, makers in enumerate(needs):
        for j in makers:
            readers[j].append(i)
    left = [len(makers) for makers in needs]
    ready = [i for i, n in enumerate(left) if n == 0]
    ordered: list[Draft] = []
    while ready:
        i = heapq.heappop(ready)
        ordered.append(drafts[i])
        for j in readers[i]:
            left[j] -= 1
            if left[j] == 0:
                heapq.heappush(ready, j)
    if len(ordered) < len(drafts):
        from core.graph.expand_faults import cycle

        names = [drafts[i].name for i in cycle(needs, left)]
        where = drafts[cycle(needs, left)[0]].where
        problems.add(where, f"{where}: the nodes run in a circle: {' -> '.join([*names, names[0]])}")
    return ordered
