"""Facts of a run: its model, device, sizes, choices of variants, checkpoints and command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.lens import Lens, LensMark
from core.view.subject import Subject
from core.words import table

CHOICES = ("op", "variant", "nodes", "source", "why", "check")


class AboutLens(Lens):
    """The facts of a run, and of those beside it."""

    name, title, question = "about", "About", "Which run is this?"

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """Facts by run, and the first run's table of choices; None without a run."""
        if not subject.runs:
            return None
        return {
            "runs": [record.facts() for record in subject.runs],
            "choices": [[str(row.get(name, "")) for name in CHOICES] for row in subject.run.variants.get("table", ())],
        }

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """A table of facts, one run a column, then the choices."""
        return [*table(*facts_table(data["runs"])), "", *table(CHOICES, data["choices"])]

    def marks(self, data: Mapping[str, Any]) -> list[LensMark]:
        """The same two tables."""
        return [
            LensMark.table("The run", *facts_table(data["runs"])),
            LensMark.table("The variant of each op", CHOICES, data["choices"]),
        ]


def facts_table(runs: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(header, rows): a fact a row, a run a column."""
    names = dict.fromkeys(name for run in runs for name in run)
    rows = [[name, *(str(run.get(name, "")) for run in runs)] for name in names if name != "run"]
    return ["fact", *(run["run"] for run in runs)], rows
