"""Nodes before their shapes are known, and their order."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.graph.problems import Problems
from core.op import Op


@dataclass
class Draft:
    """A node before its shapes are known.

    path: where it is written, ("block", "layer", "qkv"). prefixes: of its own scope first, "" last: where `tie`
    looks. op: None when the op is unknown. names: dims, and `i` in a block. owner: the node of another repeat whose
    parameters it has; "" for its own. sound: whether its op and inputs were found.
    """

    name: str
    path: tuple[str, ...]
    spec: Mapping[str, Any]
    prefixes: tuple[str, ...]
    where: str
    op: Op | None
    names: Mapping[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    owner: str = ""
    sound: bool = True

    @property
    def outputs(self) -> dict[str, str]:
        """role -> value name: the first output has the node's name, the others `node.role`."""
        roles = list(self.op.outputs) if self.op else []
        return {role: self.name if i == 0 else f"{self.name}.{role}" for i, role in enumerate(roles)}


def in_order(drafts: Sequence[Draft], problems: Problems) -> list[Draft]:
    """`drafts` so that each is after its inputs, otherwise in file order. A cycle is reported and shown."""
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
