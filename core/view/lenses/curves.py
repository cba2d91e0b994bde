"""Loss, norm, learning rate, validation and speed of runs over their steps; spikes with the text of their batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.lens import Lens
from core.train.runs import drawn as drawn_curves
from core.train.runs import number
from core.view.batch_text import text_or_why
from core.view.run_record import RunRecord
from core.view.subject import Subject
from core.words import table

VALUES = ("loss", "val_loss", "norm", "lr", "tokens_per_s", "ms", "mfu", "sol", "memory")
MOST = 2000  # points of a curve
SPIKES, MORE_SPIKES = 12, 100  # of a run
TEXT_IN_LINE = 60  # characters
WIDTH, HEIGHT = 72, 14  # of the curves in a terminal


class CurvesLens(Lens):
    """What happened at that spike, in which run?"""

    name, title, scripts = "curves", "Curves", ("curves.js",)
    question = "What happened at that spike, in which run?"

    def command(self, subject: Subject) -> str:
        """The view with the step whose batch is shown; the training, for a run without steps."""
        if subject.runs and not subject.run.metrics:
            return f"core train {subject.run.config_name}"
        return super().command(subject)

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """Curves by run and value, and each run's spikes; None where no run has a step."""
        runs = [record for record in subject.runs if record.metrics]
        options = subject.options
        most = MORE_SPIKES if options.more else SPIKES
        rows = [run_data(r, most, options.step if r is subject.run else None, options.no_text) for r in runs]
        values = [value for value in VALUES if any(value in row["curves"] for row in rows)]
        return {"runs": rows, "values": values} if rows else None

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """A row a run, the losses drawn, and the spikes."""
        header = ("run", "steps", "loss", "best val", "tokens/s", "spikes")
        rows = [
            (r["run"], r["last"], figure(r, "loss", -1), best(r), figure(r, "tokens_per_s", -1), r["spike_count"])
            for r in data["runs"]
        ]
        curves = [run["curves"]["loss"] for run in data["runs"] if "loss" in run["curves"]]
        lines = [*table(header, rows), "", *drawn_curves(curves, WIDTH, HEIGHT, len(curves) == 1)]
        for run in data["runs"]:
            lines += [*run["left_out"], *spike_lines(run)]
        return lines


def run_data(record: RunRecord, most: int, step: int | None, no_text: bool) -> dict[str, Any]:
    """One run. curves: value -> [steps, values]; spikes: the largest ones, and the step that was named."""
    lines = record.metrics
    curves = {}
    for value in VALUES:
        points = [(line["step"], y) for line in lines if (y := number(line.get(value))) is not None]
        if points:
            curves[value] = [list(axis) for axis in zip(*thinned(points, MOST), strict=True)]
    limits = {"loss_z": record.config.detect.loss_z, "norm_z": record.config.detect.norm_z}
    spikes = spikes_of(lines, limits)
    shown = sorted(sorted(spikes, key=lambda spike: -spike["score"])[:most], key=lambda spike: spike["step"])
    if step in record.metrics_by_step and step not in {spike["step"] for spike in shown}:
        shown.append(spike_of(record.metrics_by_step[step], limits))
    for spike in shown:
        spike["batch"] = {"why": "left out by --no-text"} if no_text else text_or_why(record, spike["step"])
    return {
        "run": record.name,
        "last": record.last_step,
        "left_out": [f"left out: all but {MOST:,} of {len(lines):,} steps of a curve"] if len(lines) > MOST else [],
        "curves": curves,
        "spike_count": len(spikes),
        "spikes": shown,
    }


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` points of a curve, in order: the first, the last, and the least and largest of equal stretches."""
    if len(points) <= most:
        return list(points)
    count = (most - 2) // 2
    places = {0, len(points) - 1}
    for i in range(count):
        stretch = range(1 + i * (len(points) - 2) // count, 1 + (i + 1) * (len(points) - 2) // count)
        places |= {min(stretch, key=lambda k: points[k][1]), max(stretch, key=lambda k: points[k][1])}
    return [points[i] for i in sorted(places)]


def spikes_of(lines: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """The steps that the run's detector called spikes: a score above its limit in `[detect]`; a limit of 0 is none."""
    rows = (spike_of(line, limits) for line in lines)
    return [row for row in rows if row["score"] > 1]


def spike_of(line: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
    """A step's numbers. score: the larger of its scores in parts of their limits."""
    shares = [(number(line.get(name)) or 0.0) / limit for name, limit in limits.items() if limit]
    numbers = {name: number(line.get(name)) for name in ("loss", "norm", "loss_z", "norm_z")}
    return {
        "step": line["step"],
        **numbers,
        "skipped": bool(line.get("skipped")),
        "score": round(max(shares, default=0.0), 3),
    }


def figure(run: Mapping[str, Any], value: str, at: int) -> str:
    """A number of a curve in four digits."""
    points = run["curves"].get(value)
    return f"{points[1][at]:.4g}" if points else "-"


def best(run: Mapping[str, Any]) -> str:
    """The least validation loss."""
    points = run["curves"].get("val_loss")
    return f"{min(points[1]):.4g}" if points else "-"


def spike_lines(run: Mapping[str, Any]) -> list[str]:
    """A run's spikes with the beginning of their batches."""
    if not run["spikes"]:
        return []
    rows = []
    for spike in run["spikes"]:
        batch = spike["batch"]
        text = batch.get("why") or " | ".join(batch.get("rows", ())[:1]).replace("\n", " ")[:TEXT_IN_LINE]
        scores = [f"{spike[name]:+.1f}" if spike[name] is not None else "" for name in ("loss_z", "norm_z")]
        numbers = [f"{spike[name]:.4g}" if spike[name] is not None else "" for name in ("loss", "norm")]
        rows.append((spike["step"], *numbers, *scores, "skipped" if spike["skipped"] else "", text))
    header = ("step", "loss", "norm", "loss z", "norm z", "update", "batch")
    count = run["spike_count"]
    return ["", f"{run['run']}: {count} spike{'s' * (count != 1)}", *table(header, rows)]
