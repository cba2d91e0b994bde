"""A graph's expanded nodes changed by the adapters of plugins, before their sizes are known."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from core.errors import BuildError, CoreError, did_you_mean
from core.graph.adapt_table import TABLE, settled
from core.graph.document import ModelDocument
from core.graph.draft import Draft
from core.graph.problems import Problems

if TYPE_CHECKING:
    from core.registry import Registry


@dataclass
class GraphEdit:
    """The nodes of a graph in file order, for an adapter to change.

    drafts: `name`, `op`, `inputs` (role -> value) and `spec` (attributes as they are written) of each node. A value has
    its node's name, or "node.role" for further outputs. inputs: of the graph, as they are written. loss: value or glob
    -> weight; logits: a value; None: the model's. init: globs over parameters -> rules, as in [init], which come
    after the model's own.
    """

    drafts: list[Draft]
    registry: Registry
    where: str
    names: Mapping[str, Any]
    logits: str | None
    inputs: Mapping[str, str]
    loss: dict[str, Any] | None = None
    init: dict[str, str] = field(default_factory=dict)

    def matching(self, globs: Iterable[str], op: str) -> list[Draft]:
        """The nodes of an op whose names match a glob; `*` crosses dots. BuildError for a glob without any."""
        own = [draft for draft in self.drafts if draft.op is not None and draft.op.name == op]
        chosen: dict[str, Draft] = {}
        for glob in globs:
            matches = [draft for draft in own if fnmatch.fnmatchcase(draft.name, glob)]
            if not matches:
                nearest = did_you_mean(glob, [draft.name for draft in own])
                raise BuildError(f'{self.where} match "{glob}": no node of op {op} is called so{nearest}')
            chosen |= {draft.name: draft for draft in matches}
        return [draft for draft in own if draft.name in chosen]

    def add(self, name: str, op: str, inputs: Mapping[str, str], after: Draft, **attrs: Any) -> Draft:
        """A new node after `after`. inputs: role of the op -> value. BuildError for a name in use or an unknown op."""
        if any(draft.name == name for draft in self.drafts):
            raise BuildError(f'{self.where}: there is a node "{name}" already')
        spec = {"op": op, **attrs}
        draft = Draft(
            name, (*after.path, name), spec, after.prefixes, self.where, self.registry.op(op, self.where), after.names
        )
        draft.inputs = dict(inputs)
        self.drafts.insert(self.drafts.index(after) + 1, draft)
        return draft

    def redirect(self, value: str, other: str, but: Sequence[Draft] = ()) -> None:
        """All nodes that read `value`, and the model's logits, read `other`; those of `but` do not."""
        for draft in self.drafts:
            if draft not in but:
                draft.inputs = {role: other if v == value else v for role, v in draft.inputs.items()}
        self.logits = other if self.logits == value else self.logits

    def copy(self, prefix: str, wanted: str) -> str:
        """A copy of all nodes that the value `wanted` needs, their names and parameters under `prefix`; its value."""
        return self._copied(prefix, wanted, {}, False)

    def share(self, prefix: str, wanted: str, inputs: Mapping[str, str]) -> str:
        """A copy of all nodes that the value `wanted` needs, with the parameters of the originals, which reads other
        inputs of the graph: input -> the one in its place; its value."""
        return self._copied(prefix, wanted, inputs, True)

    def _copied(self, prefix: str, wanted: str, inputs: Mapping[str, str], share: bool) -> str:
        makers = {value: draft for draft in self.drafts for value in draft.outputs.values()}
        if wanted not in makers:
            raise BuildError(f'{self.where}: no node computes "{wanted}"{did_you_mean(wanted, makers)}')
        needed, waiting = set[str](), [wanted]
        while waiting:
            value = waiting.pop()
            if value in makers and makers[value].name not in needed:
                needed.add(makers[value].name)
                waiting += makers[value].inputs.values()
        copies = []
        for draft in [draft for draft in self.drafts if draft.name in needed]:
            copies.append(
                replace(
                    draft,
                    name=prefix + draft.name,
                    path=(*draft.path, prefix),
                    prefixes=(*draft.prefixes, "") if share else tuple(prefix + one for one in draft.prefixes),
                    owner=(draft.owner or draft.name) if share else draft.owner and prefix + draft.owner,
                    inputs={r: prefix + v if v in makers else inputs.get(v, v) for r, v in draft.inputs.items()},
                )
            )
        self.drafts += copies
        return prefix + wanted


def adapted(
    source: ModelDocument,
    registry: Registry,
    names: Mapping[str, Any],
    drafts: list[Draft],
    logits: str | None,
    problems: Problems,
) -> GraphEdit:
    """The nodes after every adapter of [adapt], in the order of its tables."""
    edit = GraphEdit(drafts, registry, "", names, logits, source.document["inputs"])
    for name, table in source.document[TABLE].items():
        edit.where = source.where(TABLE, name)
        try:
            registry.adapters[name].apply(edit, settled(source, registry, name, table))
        except CoreError as error:
            problems.add(edit.where, error.message, error.hint)
    return edit
