"""Statistics of every tensor over a run's steps, as `[train] health_every` recorded them: rows over steps by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.lens import Lens
from core.plan.health_rows import GRADIENT, PARAMETER, UPDATE
from core.train.health_file import HealthStep
from core.view.node_rows import layer_of
from core.view.subject import Subject
from core.words import table

Array = np.ndarray[Any, Any]
COLUMNS, MORE_COLUMNS = 72, 512
EVERY = 10  # steps, in the command that records
GROWS, DIES = 10.0, 1e-3  # rms at the end to that at the start
STOPS = 1e-6  # an update's rms to its parameter's
ZEROS, LOST = 0.99, 0.01  # shares of a tensor's elements
BARS = " ▁▂▃▄▅▆▇█"
WIDE = 32  # marks of a row's course in a terminal
PARAMETER_KINDS = (GRADIENT, PARAMETER, UPDATE)  # kinds of rows


class HealthLens(Lens):
    """Which tensor grows, dies, or stops moving."""

    name, title, scripts = "health", "Health", ("health.js",)
    question = "Which tensor grows, dies, or stops moving?"

    def command(self, subject: Subject) -> str:
        """The training that records statistics, where there are none."""
        if subject.runs and not subject.run.health:
            return f"core train {subject.run.config_name} --set train.health_every={EVERY}"
        return super().command(subject)

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """Rows, steps, and statistics by row and step; None where none were recorded."""
        records = subject.run.health if subject.runs else []
        return health_data(subject.run.name, records, MORE_COLUMNS if subject.options.more else COLUMNS)

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """The anomalies, then each row's rms over the steps."""
        steps, rows = data["steps"], data["rows"]
        lines = [f"{data['run']}: {data['recorded']:,} steps recorded, {steps[0]:,} to {steps[-1]:,}", ""]
        notable = [(named(rows[one["row"]]), one["state"], one["text"]) for one in data["findings"]]
        lines += table(("tensor", "state", "why"), notable) if notable else ["nothing stands out"]
        shown = [
            (row["layer"], named(row), row["kind"], drawn(rms), figure(rms[-1]), figure(ratio[-1] if ratio else None))
            for row, rms, ratio in zip(rows, data["rms"], data["ratio"], strict=True)
        ]
        header = ("layer", "tensor", "kind", "rms over steps", "last rms", "update : parameter")
        return [*lines, "", *table(header, shown), *data["left_out"]]


def health_data(run: str, records: Sequence[HealthStep], most: int) -> dict[str, Any] | None:
    """The lens's dictionary, of the newest steps that have the rows of the last one; None without a step.

    rms, largest: a number for each row and step; ratio: those of updates, None for others; zeros, nonfinite, lost:
    counts of the rows that have any, by the row's index.
    """
    if not records:
        return None
    last = records[-1].rows
    same = [record for record in records if record.rows == last]
    shown = thinned(same, most)
    rms, ratio, least, largest, zeros, nonfinite, small, large = (
        np.array([record.values[name] for record in shown]).T
        for name in ("rms", "ratio", "least", "largest", "zeros", "nonfinite", "underflows", "overflows")
    )
    rows = [
        {
            "layer": layer_of(row["node"] or row["tensor"].rpartition(".")[0]) or "outside",
            "node": row["node"] or row["tensor"].rpartition(".")[0],
            "tensor": row["tensor"],
            "kind": kind_of(row["kind"]),
            "op": row["op"],
            "size": row["size"],
        }
        for row in last
    ]
    left_out = []
    if len(same) < len(records):
        left_out.append(f"{len(records) - len(same):,} steps whose plan had other tensors")
    if len(shown) < len(same):
        left_out.append(f"{len(same) - len(shown):,} of {len(same):,} steps; --more shows {MORE_COLUMNS}")
    states = [state_of_row(*numbers) for numbers in zip(rows, rms, ratio, zeros, nonfinite, small + large, strict=True)]
    return {
        "run": run,
        "recorded": len(records),
        "steps": [record.step for record in shown],
        "rows": rows,
        "rms": short(rms),
        "largest": short(np.fmax(np.abs(least), np.abs(largest))),
        "ratio": [
            short(values[None])[0] if row["kind"] == UPDATE else None for row, values in zip(rows, ratio, strict=True)
        ],
        "zeros": counts(zeros),
        "nonfinite": counts(nonfinite),
        "lost": counts(small + large),
        "findings": [{"row": i, "state": s[0], "text": s[1]} for i, s in enumerate(states) if s],
        "left_out": [f"left out: {text}" for text in left_out],
    }


def thinned(records: Sequence[HealthStep], most: int) -> list[HealthStep]:
    """At most `most` steps: the first, the last, and of equal stretches between them the one that strays most."""
    if len(records) <= most:
        return list(records)
    with np.errstate(all="ignore"):
        logs = np.log10(np.array([record.values["rms"] for record in records]))
    logs[~np.isfinite(logs)] = np.nan
    middle = np.nanmedian(np.where(np.isnan(logs).all(axis=0), 0.0, logs), axis=0)
    stray = np.nan_to_num(
        np.nanmax(np.where(np.isnan(logs), -np.inf, np.abs(logs - middle)), axis=1), posinf=0, neginf=0
    )
    cuts = np.linspace(1, len(records) - 1, most - 1).astype(int)
    inner = [a + int(stray[a:b].argmax()) for a, b in zip(cuts, cuts[1:], strict=False)]
    return [records[i] for i in (0, *inner, len(records) - 1)]


def state_of_row(
    row: Mapping[str, Any], rms: Array, ratio: Array, zeros: Array, nonfinite: Array, lost: Array
) -> tuple[str, str] | None:
    """(state, reason) of a row with an anomaly; None of any other."""
    first, last, size = rms[0], rms[-1], row["size"] or 1
    if nonfinite.any():
        return "not finite", f"{int(nonfinite.max()):,} of {size:,} elements at most"
    if (lost / size > LOST).any():
        return "lost in bf16", f"up to {100 * float(lost.max()) / size:.0f}% of its elements round to zero or infinity"
    if row["kind"] == UPDATE:
        return ("stops", f"update : parameter is {last_ratio(ratio)}") if ratio[-1] < STOPS else None
    if zeros[-1] / size >= ZEROS and zeros[0] / size < ZEROS:
        return "dies", f"{100 * float(zeros[-1]) / size:.1f}% of its elements are zero"
    if not (math.isfinite(first) and math.isfinite(last) and first > 0):
        return None
    if last > GROWS * first:
        return "grows", f"rms {figure(first)} -> {figure(last)}"
    return ("dies", f"rms {figure(first)} -> {figure(last)}") if last < DIES * first else None


def kind_of(kind: str) -> str:
    """The kind of a recorded row as the view names it."""
    if kind in PARAMETER_KINDS:
        return kind
    return "activation" if kind == "forward" else "gradient of an activation"


def last_ratio(ratio: Array) -> str:
    """The last ratio as text."""
    return figure(float(ratio[-1]))


def named(row: Mapping[str, Any]) -> str:
    """A row as its node and tensor, or as the parameter."""
    return row["tensor"] if not row["op"] else f"{row['node']}.{row['tensor']}"


def figure(value: float | None) -> str:
    """A number in four digits; "" for none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.3g}"


def short(values: Array) -> list[list[float | None]]:
    """Numbers in four digits, None for those that are absent."""
    return [[float(f"{v:.4g}") if math.isfinite(v) else None for v in row] for row in values]


def counts(values: Array) -> dict[str, list[int]]:
    """Row -> its counts, for rows that have any."""
    return {str(i): [int(v) for v in row] for i, row in enumerate(values) if row.any()}


def drawn(values: Sequence[float | None]) -> str:
    """A row's course as bars, on a logarithmic scale of its own."""
    places = np.linspace(0, len(values) - 1, min(WIDE, len(values))).astype(int)
    logs = [math.log10(v) if v else None for v in (values[i] for i in places)]
    real = [v for v in logs if v is not None]
    low, high = min(real, default=0.0), max(real, default=0.0)
    step = max(high - low, 0.05) / (len(BARS) - 2)
    return "".join(BARS[0] if v is None else BARS[1 + round((v - low) / step)] for v in logs)
