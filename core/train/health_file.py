"""health.jsonl of a run: the statistics that [train] health_every records, written and read.

A line is one step: `step`, and a list for each statistic with a number for each row. `rows` describes the rows, in the
first line of each start; a line without it has the rows of the line before. Counts that are zero in all rows are
left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.plan.health_rows import PARAMETER, UPDATE
from core.train.run import HEALTH, read_lines

if TYPE_CHECKING:
    from core.engine.health_ring import HealthColumn

Array = np.ndarray[Any, Any]
NUMBERS = ("rms", "mean", "least", "largest", "ratio")
COUNTS = ("zeros", "nonfinite", "underflows", "overflows")
DIGITS = 6


def line_of(column: HealthColumn, with_rows: bool) -> dict[str, Any]:
    """A line of health.jsonl. rms and mean are over the finite elements; ratio is that of an update's rms to its
    parameter's; a number that does not exist is None."""
    total, squares, least, largest, *counts = np.moveaxis(column.values, -1, 0)
    finite = np.array([row.size for row in column.rows], np.float64) - counts[COUNTS.index("nonfinite")]
    with np.errstate(all="ignore"):
        mean, rms = total / finite, np.sqrt(squares / finite)
        parameters = {row.tensor: own for row, own in zip(column.rows, rms, strict=True) if row.kind == PARAMETER}
        updated = [parameters[row.tensor] if row.kind == UPDATE else math.nan for row in column.rows]
        numbers = (rms, mean, least, largest, rms / np.array(updated))
    line: dict[str, Any] = {"step": column.step}
    if with_rows:
        line["rows"] = [asdict(row) for row in column.rows]
    line |= {name: list(map(_short, values)) for name, values in zip(NUMBERS, numbers, strict=True)}
    return line | {name: list(map(int, v)) for name, v in zip(COUNTS, counts, strict=True) if v.any()}


def _short(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


# --- read again --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HealthStep:
    """The statistics of one step. rows: kind, node, op, tensor and size of each, as `core.plan.health_rows.HealthRow`.
    values: statistic -> (rows,) f64, NaN where there is no number; counts that are missing are zeros."""

    step: int
    rows: Sequence[Mapping[str, Any]]
    values: Mapping[str, Array]


def read_health(run: Path) -> list[HealthStep]:
    """The steps of a run's health.jsonl in order, the last line on each; lines that are damaged are left out."""
    by_step = {record.step: record for record in _records(read_lines(run / HEALTH))}
    return [by_step[step] for step in sorted(by_step)]


def _records(lines: Sequence[Mapping[str, Any]]) -> Iterator[HealthStep]:
    rows: Sequence[Mapping[str, Any]] = ()
    for line in lines:
        rows = _rows(line["rows"]) if "rows" in line else rows
        try:
            numbers = {name: np.array(line[name], np.float64) for name in NUMBERS}
            counts = {name: np.array(line.get(name, [0] * len(rows)), np.float64) for name in COUNTS}
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        values = numbers | counts
        whole = all(v.shape == (len(rows),) for v in values.values())
        if rows and whole and not any((values[name] < 0).any() for name in ("rms", "ratio", *COUNTS)):
            yield HealthStep(line["step"], rows, values)


def _rows(listed: Any) -> Sequence[Mapping[str, Any]]:
    """The rows of a line; none unless `line_of` wrote them."""
    names = {"kind": str, "node": str, "op": str, "tensor": str, "size": int}
    whole = isinstance(listed, list) and all(
        isinstance(row, dict) and all(type(row.get(name)) is kind for name, kind in names.items()) for row in listed
    )
    return listed if whole else ()
