"""Blocks unrolled and names resolved: a model document to a flat list of drafts, each an op with its inputs named.

Shapes are not known here. A draft whose op or inputs are wrong is reported and marked, so that the drafts that depend
on it are not reported as well.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import BuildError, did_you_mean
from core.expr import evaluate, fill
from core.graph.dims import INDEX
from core.graph.document import ModelDocument
from core.graph.draft import Draft
from core.graph.far_names import FarNames, Unknown
from core.graph.model_schema import as_list
from core.graph.problems import Problems
from core.op import Op

if TYPE_CHECKING:
    from core.registry import Registry

MOST_NODES = 10_000  # beyond this a repeat is a slip of the pen


@dataclass(frozen=True)
class _Scope:
    """One table of nodes, in one repeat.

    table: ("graph",) or ("block", "layer"). prefixes: as of Draft. values: name here -> value. names: of expressions.
    inside: the blocks around it. absent: names of nodes that do not exist here -> the reason.
    """

    table: tuple[str, ...]
    prefixes: tuple[str, ...]
    values: dict[str, str]
    names: Mapping[str, Any]
    inside: tuple[str, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)


class _TooMany(Exception):
    """The graph passed MOST_NODES: nothing else is worth reporting."""


class Expander:
    """Unrolls `[graph]`. After `run`, `drafts` are in file order and `scope` holds the names that `[graph]` knows."""

    def __init__(self, source: ModelDocument, registry: Registry, dims: Mapping[str, Any], problems: Problems) -> None:
        self.source, self.registry, self.dims, self.problems = source, registry, dims, problems
        self.inputs = {name: name for name in source.document["inputs"]}
        self.blocks: Mapping[str, Any] = source.document.get("block", {})
        self.scope: dict[str, str] = dict(self.inputs)
        self.lost: set[str] = set()  # values of nodes that were reported: their readers are not reported again
        self.absent: set[str] = set()  # parameters of absent nodes
        self.count = 0
        self.ops: dict[str, Op | None] = {}
        self.far = FarNames(self.problems)

    def run(self) -> list[Draft]:
        try:
            drafts = self._table(_Scope(("graph",), ("",), self.scope, self.dims), self.source.document["graph"])
        except _TooMany:
            return []
        self.far.settle(drafts, self.scope, self.lost)
        return drafts

    def _table(self, scope: _Scope, nodes: Mapping[str, Any]) -> list[Draft]:
        """The drafts of one table in file order; `scope.values` is filled with its values."""
        made: dict[str, list[Draft]] = {}
        waiting: dict[str, Any] = {}  # blocks, and aliases
        connected: list[Draft] = []
        for key, spec in nodes.items():
            if not self._stands((*scope.table, key), spec, scope):
                self.absent.update(self._would_own(scope.prefixes[0] + key, spec, ()))
                if "else" in spec:
                    waiting[key] = spec
            elif "block" in spec:
                waiting[key] = spec
            else:
                connected.append(self._draft((*scope.table, key), spec, scope))
                made[key] = connected[-1:]
        while waiting:
            # A block's inputs must have names before it is unrolled; ops have theirs already, blocks when unrolled.
            ready = [k for k, s in waiting.items() if not {_head(n) for n in self._needs(k, s, scope)} & waiting.keys()]
            if not ready:
                key = next(iter(waiting))
                where = self.source.where(*scope.table, key)
                self.problems.add(where, f"{where}: the blocks {' and '.join(waiting)} wait for one another")
                self._lose(scope, *((k, scope.prefixes[0] + k) for k in waiting))
                break
            for key in ready:
                spec, path = waiting.pop(key), (*scope.table, key)
                if key in scope.absent:
                    self._stand_in(path, spec["else"], scope)
                else:
                    made[key] = self._block(path, spec, scope)
        for draft in connected:
            self._connect(draft, scope)
        return [draft for key in nodes for draft in made.get(key, [])]

    def _lose(self, scope: _Scope, *pairs: tuple[str, str]) -> None:
        for name, value in pairs:
            scope.values[name] = value
            self.lost.add(value)

    # --- nodes of some repeats only -------------------------------------------------------------------------------

    def _stands(self, path: tuple[str, ...], spec: Mapping[str, Any], scope: _Scope) -> bool:
        """Whether a node exists here, by its `when`; otherwise `scope.absent` has the reason."""
        key, where = path[-1], f"{self.source.where(*path)}, node {scope.prefixes[0]}{path[-1]}"
        if "when" not in spec:
            return True
        try:
            if evaluate(spec["when"], scope.names, f'{where}: "when"'):
                return True
        except BuildError as error:
            self.problems.take(self.source.where(*path), error)
            self._lose(scope, (key, scope.prefixes[0] + key))
        at = f" for {INDEX} = {scope.names[INDEX]}" if INDEX in scope.names else ""
        scope.absent[key] = f"when = {spec['when']!r} is 0{at}"
        return False

    def _needs(self, key: str, spec: Mapping[str, Any], scope: _Scope) -> list[str]:
        return [spec["else"]] if key in scope.absent else as_list(spec["in"])

    def _stand_in(self, path: tuple[str, ...], other: str, scope: _Scope) -> None:
        """The name of a node that does not exist, and those of its further outputs, become names of `other`."""
        key, where = path[-1], self.source.where(*path)
        value = self._resolve(other, scope, where, f'{scope.prefixes[0]}{key}: "else"')
        if value is None:
            self._lose(scope, (key, scope.prefixes[0] + key))
            return
        further = {key + n[len(other) :]: v for n, v in scope.values.items() if n.startswith(f"{other}.")}
        for name, target in {key: value, **further}.items():
            scope.values[name] = self.far.values[scope.prefixes[0] + name] = target

    def _would_own(self, name: str, spec: Mapping[str, Any], inside: tuple[str, ...]) -> Iterator[str]:
        """The parameters that an absent node would have, of a block those of its first repeat."""
        if "block" not in spec:
            op = self.registry.ops.get(spec["op"])
            yield from (f"{name}.{role}" for role in (op.params if op else ()))
        elif spec["block"] in self.blocks and spec["block"] not in inside:
            for key, inner in self.blocks[spec["block"]].items():
                if isinstance(inner, dict):
                    yield from self._would_own(f"{name}.0.{key}", inner, (*inside, spec["block"]))

    # --- ops -----------------------------------------------------------------------------------------------------

    def _draft(self, path: tuple[str, ...], spec: Mapping[str, Any], scope: _Scope) -> Draft:
        self._count(1, path)
        key, where = path[-1], self.source.where(*path)
        name = scope.prefixes[0] + key
        draft = Draft(name, path, spec, scope.prefixes, where, self._op(spec["op"], where), scope.names)
        if draft.op is None or not draft.op.outputs:
            if draft.op is not None:
                self.problems.add(where, f'{where}: op "{draft.op.name}" has no output: it is not a node of a model')
            draft.sound = False
            self._lose(scope, (key, draft.name))
        for role, value in draft.outputs.items():
            scope.values[key if value == draft.name else f"{key}.{role}"] = self.far.values[value] = value
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

    def _connect(self, draft: Draft, scope: _Scope) -> None:
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
                value = self._resolve(name, scope, draft.where, f'{draft.name}.{role}: "in"')
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

    def _resolve(self, name: str, scope: _Scope, where: str, subject: str) -> str | None:
        """The value of a name in `in`, or None and a problem; of a name in another repeat, a name for later."""
        try:
            filled = fill(name, scope.names, f"{where}, {subject}")
        except BuildError as error:
            self.problems.take(where, error)
            return None
        if filled in scope.values:
            return scope.values[filled]
        if scope.values.get(_head(filled)) in self.lost:
            return scope.values[_head(filled)]
        gone = self.source.removed.get((*scope.table, filled), "")
        unknown = Unknown(f"{where}, {subject}", filled, ".".join(scope.table), scope.values, scope.absent, gone)
        if "." in filled:
            return self.far.later(unknown, scope.prefixes, where)
        self.problems.add(where, *unknown.words())
        return None

    # --- blocks --------------------------------------------------------------------------------------------------

    def _block(self, path: tuple[str, ...], spec: Mapping[str, Any], scope: _Scope) -> list[Draft]:
        """Unroll one block node: `h` gives `h.0.qkv`, `h.1.qkv`, ...; the value of `out` is the next `in`."""
        key, name, where, prefix = path[-1], spec["block"], self.source.where(*path), scope.prefixes[0] + path[-1]
        self._lose(scope, (key, prefix))  # until it is known
        carried = [self._resolve(n, scope, where, f'{prefix}: "in"') for n in as_list(spec["in"])]
        repeat = self._check_block(path, spec, scope)
        if repeat is None or None in carried:
            return []
        body = self.blocks[name]
        takes, gives = as_list(body["in"]), as_list(body["out"])
        nodes = {k: v for k, v in body.items() if k not in ("in", "out")}
        drafts: list[Draft] = []
        owners: dict[tuple[Any, str], str] = {}
        numbered = "repeat" in spec or INDEX not in scope.names  # a block without `repeat` keeps the `i` around it
        for i in range(repeat):
            self._count(1 if not nodes else 0, path)  # an empty block still takes time
            inner = _Scope(
                ("block", name),
                (f"{prefix}.{i}.", *scope.prefixes),
                {**self.inputs, **{t: c for t, c in zip(takes, carried, strict=True) if c}},
                ChainMap({INDEX: i}, dict(scope.names)) if numbered else scope.names,
                (*scope.inside, name),
            )
            own = self._table(inner, nodes)
            self._share(own, spec, inner, owners, where)
            drafts += own
            carried = [self._resolve_out(o, inner, self.source.where("block", name, "out")) for o in gives]
            if None in carried:
                return drafts
        del scope.values[key]
        self.lost.discard(prefix)
        for i, (give, value) in enumerate(zip(gives, carried, strict=True)):
            for end in (f".{give}", *([""] if i == 0 else [])):
                scope.values[key + end] = self.far.values[prefix + end] = value or ""
        return drafts

    def _share(
        self,
        drafts: Sequence[Draft],
        spec: Mapping[str, Any],
        scope: _Scope,
        owners: dict[tuple[Any, str], str],
        where: str,
    ) -> None:
        """Give the nodes of a repeat the parameters of the first repeat that `share` groups it with."""
        share = spec.get("share", False)
        if share is False:
            return
        try:
            group = share if share is True else evaluate(share, scope.names, f'{where}: "share"')
        except BuildError as error:
            self.problems.take(where, error)
            return
        for draft in drafts:
            first = draft.owner or draft.name
            owner = owners.setdefault((group, first.removeprefix(scope.prefixes[0])), first)
            draft.owner = "" if owner == draft.name else owner

    def _resolve_out(self, name: str, scope: _Scope, where: str) -> str | None:
        if name not in scope.values:
            from core.graph.expand_faults import unknown_output

            gone = self.source.removed.get((*scope.table, name), "")
            repeat = scope.prefixes[0].rstrip(".")
            self.problems.add(where, *unknown_output(f"{where}, {repeat}", name, scope.values, scope.absent, gone))
        return scope.values.get(name)

    def _check_block(self, path: tuple[str, ...], spec: Mapping[str, Any], scope: _Scope) -> int | None:
        """The number of repeats of the block; None, and a problem, if it cannot be unrolled."""
        name, where = spec["block"], self.source.where(*path)
        try:
            repeat = evaluate(spec.get("repeat", 1), scope.names, f'{where} "repeat"')
        except BuildError as error:
            self.problems.take(where, error)
            return None
        body = self.blocks.get(name) if name not in scope.inside else None
        if body is not None and isinstance(repeat, int) and 1 <= repeat <= MOST_NODES:
            takes, gives, passed = (len(as_list(names)) for names in (body["in"], body["out"], spec["in"]))
            if passed == takes and (repeat == 1 or gives == takes):
                return repeat
        from core.graph.expand_faults import why_not_unrolled

        message = why_not_unrolled(name, spec, repeat, self.blocks, scope.inside, MOST_NODES)
        self.problems.add(where, f"{where}: {message}")
        return None


def _head(name: str) -> str:
    """The node that a name belongs to: `router.balance` -> `router`."""
    return name.partition(".")[0]


def _takes(op: Op) -> str:
    roles = ", ".join(f"{r} (optional)" if s.optional else r for r, s in op.inputs.items())
    return f'op "{op.name}" takes {roles or "no input"}'
