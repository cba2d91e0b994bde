"""The arena of a plan over its steps: place, lifetime, role and node of each tensor, and the fullest step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from core.plan.buffers import Buffer, alive
from core.plan.steps import Plan, Step

SAVED = "saved"  # the role of all that forward keeps for backward


def role_of(plan: Plan, buffer: Buffer) -> str:
    """A buffer's purpose in the arena: "saved" for all that forward keeps for backward, else its own role;
    "activation" for a tensor that a variant saves within one direction."""
    if plan.keeps(buffer):
        return SAVED
    return "activation" if buffer.role == SAVED else buffer.role


def buffer_rows(plan: Plan) -> list[dict[str, Any]]:
    """One row a buffer of the arena, in the order of their first steps.

    name, role, node: the node whose step makes it, or "". first, last: the steps between which it is alive, both
    included; last is the number of steps for a tensor that is read after them. offset, bytes: its place. shape, dtype.
    """
    return [
        {
            "name": buffer.name,
            "role": role_of(plan, buffer),
            "node": _node(plan.steps[buffer.first]) if buffer.first < len(plan.steps) else "",
            "first": buffer.first,
            "last": min(buffer.last, len(plan.steps)),
            "offset": buffer.offset,
            "bytes": buffer.nbytes,
            "shape": [int(n) for n in buffer.shape],
            "dtype": buffer.dtype,
        }
        for buffer in sorted(plan.in_arena, key=lambda b: (b.first, b.offset))
    ]


def step_rows(plan: Plan) -> list[dict[str, str]]:
    """One row a step: its kind, and its node or ""."""
    return [{"kind": step.kind, "node": _node(step)} for step in plan.steps]


def levels(plan: Plan) -> list[int]:
    """Bytes of the arena that are in use at each step, and after the last one."""
    change = [0] * (len(plan.steps) + 2)
    for buffer in plan.in_arena:
        change[min(buffer.first, len(plan.steps))] += buffer.nbytes
        change[min(buffer.last, len(plan.steps)) + 1] -= buffer.nbytes
    return list(accumulate(change))[:-1]


def fullest(plan: Plan) -> int:
    """The step at which most bytes of the arena are in use."""
    level = levels(plan)
    return level.index(max(level))


def owners(plan: Plan, step: int) -> list[Mapping[str, Any]]:
    """The owners of the arena at a step, the largest first: rows of name (repeats folded into `h.*`), role, count,
    shape, dtype and bytes of all."""
    groups: dict[tuple[Any, ...], list[Buffer]] = {}
    for buffer in alive(plan.in_arena, step):
        key = (folded_name(buffer.name), buffer.shape, buffer.dtype, role_of(plan, buffer))
        groups.setdefault(key, []).append(buffer)
    rows = [
        {"name": name, "role": role, "count": len(members), "shape": [int(n) for n in shape], "dtype": dtype}
        | {"bytes": sum(b.nbytes for b in members)}
        for (name, shape, dtype, role), members in groups.items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def folded_name(name: str) -> str:
    """The name with `*` in place of a repeat's number: `h.*.fc`."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def _node(step: Step) -> str:
    return "" if step.node is None else step.node.name
