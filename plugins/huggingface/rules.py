"""[hf.params] of a model, by parameter: the place of its numbers in Hugging Face's tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import BuildError, did_you_mean
from core.expr import evaluate, fill, trim
from core.interop import Array, Graph, Parameter, name_pattern

from .config import TABLE, listed


@dataclass(frozen=True)
class Rule:
    """The place of a parameter's numbers: tensors[e][r], by Hugging Face's names without prefix.

    Each is transposed if `transpose`; the rows of tensors[e] follow one another, rows[r] of each; `stack`: a new first
    dim over e.
    """

    tensors: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]
    transpose: bool = False
    stack: bool = False

    def part(self, whole: Array, e: int, r: int) -> Array:
        """The part of the parameter `whole` in tensors[e][r], a view: the rule read backwards."""
        group = whole[e] if self.stack else whole
        start = sum(self.rows[:r])
        rows = group[start : start + self.rows[r]] if group.ndim else group
        return rows.T if self.transpose else rows


def rules(graph: Graph) -> dict[str, Rule]:
    """The rule of each parameter. BuildError for a parameter that [hf.params] does not know, or knows twice."""
    source = graph.source
    table = source.document.get(TABLE, {}).get("params", {})
    patterns = [(name_pattern(name), name, rule) for name, rule in table.items()]
    by_name: dict[str, Rule] = {}
    matched: set[str] = set()
    for parameter in graph.parameters.values():
        fits = [(m, name, rule) for pattern, name, rule in patterns if (m := pattern.fullmatch(parameter.name))]
        if len(fits) != 1:
            why = f"two entries fit {parameter.name}" if fits else f"no entry fits {parameter.name}"
            raise BuildError(f"{source.where()} [{TABLE}.params]: {why}")
        match, name, rule = fits[0]
        matched.add(name)
        where = source.where(TABLE, "params", name)
        by_name[parameter.name] = _rule(rule, parameter, match.groupdict(), graph, where)
    for name in table:
        if name not in matched and not any(name_pattern(name).fullmatch(absent) for absent in graph.absent):
            where = source.where(TABLE, "params", name)
            raise BuildError(f"{where}: the model has no such parameter{did_you_mean(name, graph.parameters)}")
    return by_name


def _rule(rule: Any, parameter: Parameter, numbers: Mapping[str, str], graph: Graph, where: str) -> Rule:
    table = rule if isinstance(rule, dict) else {"from": rule}
    names = table.get("rows", table.get("from"))
    names = [names] if isinstance(names, str) else names
    counter = table.get("stack")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise BuildError(f'{where} is {rule!r:.200}; expected a tensor\'s name, a list of them, or {{ from = "..." }}')
    shape = trim(parameter.shape)
    if len(shape) < (2 if counter else 1):
        raise BuildError(f"{where}: {parameter.name} has shape {shape}, too few dims for this rule")
    count = shape[0] if counter else 1
    rows = _rows(table.get("sizes"), len(names), shape[1] if counter else shape[0], graph, f"{where}: {parameter.name}")

    def filled(name: str, index: int) -> str:
        counted = {key: int(number) for key, number in numbers.items()} | ({counter: index} if counter else {})
        return fill(name, {**graph.dims, **counted}, where)

    tensors = tuple(tuple(filled(name, index) for name in names) for index in range(count))
    return Rule(tensors, rows, bool(table.get("transpose")), bool(counter))


def _rows(sizes: Any, parts: int, total: int, graph: Graph, where: str) -> tuple[int, ...]:
    """The number of a parameter's `total` rows in each of its tensors: equal parts without `sizes`."""
    if sizes is None:
        if total % parts:
            raise BuildError(
                f"{where} has {total} rows, which are no {parts} equal parts", hint="`sizes` has the rows of each"
            )
        return (total // parts,) * parts
    rows = tuple(evaluate(size, graph.dims, where) for size in sizes)
    if len(rows) != parts or sum(rows) != total or not all(isinstance(n, int) and n > 0 for n in rows):
        raise BuildError(f"{where} has {total} rows in {parts} tensors; `sizes` has {', '.join(map(str, rows))}")
    return tuple(int(n) for n in rows)


def names(graph: Graph) -> dict[str, str | tuple[str, ...]]:
    """Parameter -> Hugging Face's tensor, or the tensors whose rows it stacks, with the prefix that export writes."""
    full = {parameter: tuple(name for name, _ in parts) for parameter, parts in tensors(graph).items()}
    return {parameter: parts[0] if len(parts) == 1 else parts for parameter, parts in full.items()}


def tensors(graph: Graph) -> dict[str, list[tuple[str, Callable[[Array], Array]]]]:
    """Parameter -> its tensors, by the names that export writes, each with the view of the parameter that it holds."""
    prefix = (listed(graph.source, "prefix") or [""])[0]
    return {
        parameter: [
            (prefix + name, functools.partial(rule.part, e=e, r=r))
            for e, group in enumerate(rule.tensors)
            for r, name in enumerate(group)
        ]
        for parameter, rule in rules(graph).items()
    }
