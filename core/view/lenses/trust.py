"""Each node's variant and the record of its check: device, dtype, sub-checks, worst error, date, and the sizes that it
covered beside those of this run. All of it is from the records of the checks (core.verdicts)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from typing import Any

from core.lens import Lens
from core.plan.arena import folded_name
from core.plan.needs import Need, needs_of
from core.testing.checks import MEANING
from core.verdicts import Sizes, Verdict, Verdicts, label, place_of
from core.view.private import short_place
from core.view.subject import Subject
from core.words import table

GLYPHS = {"good": "●", "part": "◐", "none": "○", "bad": "✕"}
STATES = {
    "good": "checked at these sizes",
    "part": "checked in part",
    "none": "not checked",
    "bad": "failed",
}


class TrustLens(Lens):
    """Which code ran, and how far it was checked."""

    name, title, scripts = "trust", "Trust", ("trust.js",)
    question = "Which code ran, and how far was it checked?"

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """One row for each distinct work of the plan, nested launches and the update included; None without a run."""
        if not subject.runs:
            return None
        engine, record = subject.engine, subject.run
        engine.report(subject.plan).choices()  # records nested launches
        place, verdicts = place_of(engine.device), Verdicts(subject.registry)
        parts = {node.name: [part.name for part in node.parts] for node in subject.plan.nodes}
        rows = [
            trust_row(need, verdicts.lookup(need.variant, place, need.dtype), place)
            | {"parts": parts.get(need.nodes[0], []), "groups": groups_of(need, parts)}
            for need in needs_of(subject.plan, engine.chooser)
        ]
        counts = Counter(row["state"] for row in rows)
        return {
            "run": record.name,
            "place": place,
            "own_device": record.own_device,
            "precision": engine.precision,
            "states": {state: [GLYPHS[state], words, counts[state]] for state, words in STATES.items()},
            "check": f"core check --config {record.config_name}",
            "meanings": {name: str(text) for name, text in MEANING.items()},
            "rows": rows,
        }

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """Sums by state, then a row for each distinct work, and the sizes that its check covered."""
        sums = ", ".join(f"{glyph} {count} {words}" for glyph, words, count in data["states"].values() if count)
        rows = [
            [
                data["states"][row["state"]][0],
                " ".join(row["groups"]),
                len(row["nodes"]),
                f"{row['op']}.{row['variant']}",
                row["words"],
                *(record_cells(row["record"])),
            ]
            for row in data["rows"]
        ]
        where = "" if data["own_device"] else ", which is not the run's own device"
        header = ("", "nodes", "times", "variant", "state", "where", "worst", "date", "covered")
        head = f"{data['run']} on {data['place']}, in {data['precision']}{where}"
        return [head, sums, "", *table(header, rows, right={2}), "", f"more checks: {data['check']}"]


def trust_row(need: Need, verdict: Verdict | None, place: str) -> dict[str, Any]:
    """A row of the lens: nodes, op, variant, why it was chosen, dtype, this run's sizes by dim, state, the state as
    text, and the check's record or None."""
    state, words = state_of(verdict, need.sizes, place)
    return {
        "nodes": list(need.nodes),
        "op": need.op.name,
        "variant": need.variant.name,
        "why": short_place(need.why),
        "dtype": need.dtype,
        "sizes": dict(need.sizes),
        "state": state,
        "words": words,
        "record": None if verdict is None else record_of(verdict),
    }


def groups_of(need: Need, nodes: Container[str]) -> list[str]:
    """The names of a need's nodes without a repeat's number; for a nested launch, its op."""
    nested = f"{need.op.name} (nested)"
    return list(dict.fromkeys(folded_name(name) if name in nodes else nested for name in need.nodes))


def state_of(verdict: Verdict | None, sizes: Sizes, place: str) -> tuple[str, str]:
    """(a key of STATES, its text) of nodes of these sizes at a place."""
    if verdict is None:
        return "none", "not checked"
    if not verdict.passed:
        return "bad", f"failed {verdict.there}"
    if sizes and not verdict.sizes:
        return "part", "checked; sizes not recorded"
    if beyond := verdict.beyond(sizes):
        return "part", f"checked at smaller sizes only, not at {label(beyond)}"
    if below := verdict.below(sizes):
        return "part", f"checked at larger sizes only, not at {label(below)}"
    if verdict.where != place:
        return "part", f"checked {verdict.there}, not on {place}"
    return "good", "checked at these sizes" if verdict.has_range else "checked up to these sizes"


def record_of(verdict: Verdict) -> dict[str, Any]:
    """A check's record as JSON. checks: sub-check -> worst relative error. covered: dim -> the smallest size that was
    checked, None where it was not recorded, and the largest."""
    return {
        "device": verdict.device,
        "chip": verdict.chip,
        "there": verdict.there,
        "dtype": verdict.dtype,
        "passed": verdict.passed,
        "checks": dict(verdict.checks),
        "worst": verdict.worst,
        "finding": verdict.finding,
        "date": verdict.date,
        "version": verdict.version,
        "covered": {dim: [verdict.smallest.get(dim), largest] for dim, largest in verdict.sizes.items()},
    }


def record_cells(record: Mapping[str, Any] | None) -> list[str]:
    """Cells of the terminal's table."""
    if record is None:
        return ["", "", "", ""]
    spans = (
        f"{dim}={'?' if least is None else f'{least:,}'}..{most:,}" for dim, (least, most) in record["covered"].items()
    )
    covered = " ".join(spans) or "sizes not recorded"
    return [record["there"], f"{record['worst']:.1e}", record["date"], covered]
