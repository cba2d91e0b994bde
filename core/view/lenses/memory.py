"""The arena of a training micro-step: place over time, by role, and the owners of its fullest step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.lens import Lens
from core.plan import Plan
from core.plan.arena import buffer_rows, folded_name, fullest, levels, owners, step_rows
from core.plan.figures import scratch
from core.view.subject import Subject
from core.words import human, percent, table

SHOWN = 16  # owners in a terminal
WITHIN = ("saved", "workspace")  # parts of the memory that are inside the arena


class MemoryLens(Lens):
    """Place and lifetime of each tensor in the arena: the plan's own buffers, those of `core plan CONFIG --json`."""

    name, title, scripts = "memory", "Memory", ("memory.js",)
    question = "Who owns the peak?"

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """The dictionary of `memory_data`, with the run's parts of memory; None without a run."""
        if not subject.runs:
            return None
        report = subject.engine.report(subject.plan)
        about = {"run": subject.run.name, "device": subject.engine.device.describe()}
        return about | {"parts": report.memory() | scratch(report)} | memory_data(subject.plan)

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """The parts, then the owners of the fullest step by role and by tensor."""
        peak, most = data["peak"], data["levels"][data["peak"]]
        step = data["steps"][peak] if peak < len(data["steps"]) else {"kind": "end", "node": ""}
        name = " ".join(word for word in (step["kind"], step["node"]) if word)
        parts = [
            (part + " (within activations)" * (part in WITHIN), human(nbytes))
            for part, nbytes in data["parts"].items()
            if nbytes
        ]
        roles = [(role, human(nbytes), percent(nbytes / most)) for role, nbytes in roles_of(data["owners"]).items()]
        rows = [
            (row["name"], row["role"], row["count"], human(row["bytes"]), percent(row["bytes"] / most))
            for row in data["owners"][:SHOWN]
        ]
        rest = len(data["owners"]) - len(rows)
        return [
            f"{data['run']} on {data['device']}",
            *table(None, parts, right={1}),
            "",
            f"fullest at step {peak} of {len(data['steps'])}, {name}: {human(most)} of {human(data['arena'])}",
            *table(("role", "bytes", "share"), roles, right={1, 2}),
            "",
            *table(("tensor", "role", "times", "bytes", "share"), rows, right={2, 3, 4}),
            *([f"and {rest} more: --json has them"] if rest > 0 else []),
        ]


def memory_data(plan: Plan) -> dict[str, Any]:
    """The lens's dictionary of a plan.

    arena: bytes. peak: the fullest step. backward: the first step of backward. levels: bytes in use by step. steps,
    buffers, owners: rows of core.plan.arena; a buffer's group is its name without a repeat's number.
    """
    peak = fullest(plan)
    return {
        "arena": plan.arena_bytes,
        "peak": peak,
        "backward": plan.backward_from,
        "levels": levels(plan),
        "steps": step_rows(plan),
        "buffers": [row | {"group": folded_name(row["name"])} for row in buffer_rows(plan)],
        "owners": owners(plan, peak),
    }


def roles_of(rows: list[Mapping[str, Any]]) -> dict[str, int]:
    """Bytes by role, the most first."""
    sums: dict[str, int] = {}
    for row in rows:
        sums[row["role"]] = sums.get(row["role"], 0) + row["bytes"]
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
