"""Names of values in other repeats, `h.{i - 1}.v`, which are resolved when all repeats are unrolled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.graph.draft import Draft
from core.graph.problems import Problems


@dataclass(frozen=True)
class Unknown:
    """A name that its own scope does not have. subject: the place and the input; scope: the names there; absent: names
    of nodes that do not exist there; gone: the place that removed it."""

    subject: str
    name: str
    table: str
    scope: Mapping[str, str]
    absent: Mapping[str, str]
    gone: str

    def words(self) -> tuple[str, str]:
        """Message and hint."""
        from core.graph.expand_faults import unknown_input

        return unknown_input(self.subject, self.name, self.table, self.scope, self.absent, self.gone)


class FarNames:
    """values: expanded name -> value, of the whole graph, aliases included."""

    def __init__(self, problems: Problems) -> None:
        self.values: dict[str, str] = {}
        self._waiting: dict[str, tuple[Unknown, Sequence[str], str]] = {}
        self._problems = problems

    def later(self, unknown: Unknown, prefixes: Sequence[str], where: str) -> str:
        """A value's name until `settle`. The name is looked up after each prefix, in their order, as `tie` does."""
        name = f"?{len(self._waiting)}"
        self._waiting[name] = unknown, prefixes, where
        return name

    def settle(self, drafts: Sequence[Draft], scope: dict[str, str], lost: set[str]) -> None:
        """Put the values in place of the names of `later`, in the inputs of drafts and in `scope`; report unknown
        ones, whose drafts are lost."""
        if not self._waiting:
            return
        values = {name: self._value(name) for name in self._waiting}
        for draft in drafts:
            if values.keys().isdisjoint(draft.inputs.values()):
                continue
            draft.inputs = {role: values.get(value, value) or "" for role, value in draft.inputs.items()}
            if "" in draft.inputs.values():
                draft.sound = False
                lost.update(draft.outputs.values())
        for name, value in scope.items():
            scope[name] = values.get(value, value) or ""

    def _value(self, name: str) -> str | None:
        way = [name]
        while way[-1] in self._waiting:
            unknown, prefixes, where = self._waiting[way[-1]]
            value = next((self.values[p + unknown.name] for p in prefixes if p + unknown.name in self.values), None)
            if value is None or value in way:
                message, hint = unknown.words()
                self._problems.add(where, message if value is None else f"{message}: it is an alias of itself", hint)
                return None
            way.append(value)
        return way[-1]
