"""Faults that keep a model's document from becoming a graph: ties, unused nodes, shapes that follow the batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from core.errors import did_you_mean
from core.expr import described
from core.graph.problems import Problems
from core.graph.types import Graph

Shape = tuple[int, ...]


def report_unused(drafts: Iterable[Any], inputs: Mapping[str, str], problems: Problems) -> None:
    """Nodes that nothing reads, as drafts, and inputs with their places."""
    for draft in drafts:
        problems.add(
            draft.where,
            f"{draft.where}, node {draft.name}: nothing uses it: no node, no loss, not the logits",
            "remove it, or name it where it belongs",
        )
    for name, where in inputs.items():
        problems.add(where, f"{where}: no node uses this input", f"inputs = {{ {name} = false }} removes it")


def report_unknown_tie(where: str, node: str, source: str, names: Collection[str], problems: Problems) -> None:
    """A tie to `source`, which is none of the parameters `names`."""
    problems.add(
        where,
        f'{where}, node {node}: "tie" names "{source}", which is not a parameter{did_you_mean(source, names)}',
        'a parameter is its node\'s name and its role, as in "wte.weight"',
    )


def report_tie(
    where: str,
    place: str,
    tied: tuple[str, Shape],
    owner: tuple[str, Shape | None],
    way: Sequence[str],
    both: Sequence[str],
    problems: Problems,
) -> None:
    """A parameter that cannot be tied. where: the node, place: its line. tied: role and shape; owner: name and shape;
    way: the ties from one to the other; both: the node's roles that would be one parameter."""
    (role, needed), (name, shape) = tied, owner
    if name in way:
        problems.add(place, f"{where}: parameters are tied in a circle: {' -> '.join([*way, name])}")
        return
    if shape is not None and described(shape) != described(needed):
        problems.add(
            place,
            f"{where}: {role} needs shape {described(needed)}, but {name}, which it is tied to, has {described(shape)}",
        )
    if len(both) > 1:
        problems.add(
            place,
            f"{where}: {' and '.join(both)} are one parameter, {name}: a node takes a parameter in one place",
            "tie parameters of different nodes",
        )


def refuse_shapes(graph: Graph, again: Graph, dim: str, names: Sequence[str]) -> None:
    """BuildError for the parameters `names`, whose shapes follow the dim B or T, as a graph with another one shows."""
    problems = Problems()
    for name in names:
        sides = [(g, g.parameters.get(name)) for g in (graph, again)]
        owner = next(p.node for _, p in sides if p)
        where = next(n.where for g in (graph, again) for n in g.nodes if n.name == owner)
        seen = [f"{described(p.shape) if p else 'absent'} at {dim} = {g.dims[dim]}" for g, p in sides]
        problems.add(
            where,
            f"{where}: the shape of parameter {name} follows {dim}: {', '.join(seen)}",
            f"give it a dim of its own: {dim} changes from plan to plan",
        )
    problems.finish()
