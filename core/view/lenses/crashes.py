"""A step that stopped its run: from the first tensor to the first op that was not finite, with its batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.lens import Lens, LensMark
from core.outside import parse_json, read_whole
from core.train.crash import BATCH, REPORT, TENSORS, TEXT
from core.train.runs import json_of, number
from core.view.subject import Subject
from core.words import printable, table

CRASHES = 3  # the newest ones
ROWS, MORE_ROWS = 60, 2000  # tensors before the cause
LINES, MORE_LINES = 40, 2000  # of the batch's text
NAMES = ("node", "op", "variant", "tensor")  # of a cause
HEADER = ("#", "kind", "node or parameter", "tensor", "op", "rms", "least", "largest", "nan", "inf")


class CrashLens(Lens):
    """Where did the first number that is not finite come from?"""

    name, title = "crash", "Crash"
    question = "Where did the first bad number come from?"

    def command(self, subject: Subject) -> str:
        """The source of the data: a run that stops on its own."""
        if subject.runs and not subject.run.crashes:
            return f"core train {subject.run.config_name}  # a loss or norm that is not finite leaves crash-step_N/"
        return super().command(subject)

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """The newest crash folders of the run; None where no step stopped it."""
        if not subject.runs or not subject.run.crashes:
            return None
        options = subject.options
        sizes = (MORE_ROWS, MORE_LINES) if options.more else (ROWS, LINES)
        folders = subject.run.crashes[::-1][:CRASHES]
        return {"run": subject.run.name, "crashes": [crash_data(f, *sizes, options.no_text) for f in folders]}

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """Each crash: numbers, the cause, the tensors on the way to it, the batch."""
        lines: list[str] = []
        for crash in data["crashes"]:
            lines += [
                *head_lines(crash),
                "",
                *table(HEADER, list(map(cells, crash["tensors"]))),
                *crash["left_out"],
                "",
            ]
            lines += [*crash["batch"], ""]
        return lines

    def marks(self, data: Mapping[str, Any]) -> list[LensMark]:
        """The same, and the magnitudes on the way as curves."""
        marks = []
        for crash in data["crashes"]:
            tensors, at = crash["tensors"], f"step {crash['step']}"
            marks.append(LensMark.text(f"The crash of {data['run']} at {at}", [*head_lines(crash), *crash["left_out"]]))
            series = {"rms": [decades(r["rms"]) for r in tensors], "largest": [decades(largest(r)) for r in tensors]}
            places = [row["at"] for row in tensors]
            if any(value is not None for values in series.values() for value in values):
                marks.append(
                    LensMark.lines(f"{at}: magnitude from tensor to tensor, as powers of ten", places, series, "tensor")
                )
            marks.append(LensMark.table(f"{at}: tensors up to the cause", HEADER, list(map(cells, tensors))))
            marks.append(LensMark.text(f"{at}: its batch", crash["batch"]))
        return marks


def crash_data(folder: Path, rows: int, lines: int, no_text: bool) -> dict[str, Any]:
    """One crash folder: numbers, cause, the tensors up to it, the batch's text. Files that are damaged are left out."""
    report = json_of(folder / REPORT)
    tensors = read_tensors(folder)
    shown = tensors[-rows:]
    left_out = [f"left out: the first {len(tensors) - len(shown):,} of {len(tensors):,} tensors; --more shows more"]
    cause = report.get("cause")
    return {
        "step": report.get("step", folder.name.rpartition("_")[2].lstrip("0")),
        **{name: str(report.get(name, "unknown")) for name in ("loss", "norm", "lr")},
        "cause": {k: v for k, v in cause.items() if isinstance(v, str | int)} if isinstance(cause, dict) else {},
        "tensors": shown,
        "left_out": left_out if len(shown) < len(tensors) else [],
        "batch": ["left out by --no-text"] if no_text else batch_lines(folder, lines),
    }


def read_tensors(folder: Path) -> list[dict[str, Any]]:
    """The rows of tensors.jsonl in order, `at` counted from 1; lines that are damaged are left out."""
    rows = []
    with contextlib.suppress(OSError):
        for line in read_whole(folder / TENSORS, follow=False).split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                row = parse_json(line)
                if isinstance(row, dict):
                    rows.append(row)
    names = ("kind", "node", "op", "variant", "tensor")
    numbers = ("rms", "min", "max", "nan", "inf", "zeros", "micro_step")
    return [
        {"at": at, **{n: str(row.get(n, "")) for n in names}, **{n: finite(row.get(n)) for n in numbers}}
        for at, row in enumerate(rows, 1)
    ]


def finite(value: Any) -> float | None:
    """A finite number as it is, None for anything else."""
    return value if number(value) is not None else None


def batch_lines(folder: Path, most: int) -> list[str]:
    """The beginning of batch.txt."""
    with contextlib.suppress(OSError):
        lines = printable(read_whole(folder / TEXT, follow=False).decode("utf-8", "replace")).splitlines()
        more = [f"... and {len(lines) - most:,} lines more in {folder.name}/{TEXT}"] if len(lines) > most else []
        return lines[:most] + more
    return [f"the data had no tokenizer; the ids are in {folder.name}/{BATCH}"]


def head_lines(crash: Mapping[str, Any]) -> list[str]:
    """The step's numbers and its cause."""
    cause = crash["cause"]
    where = ", ".join(f"{name} {cause[name]}" for name in NAMES if cause.get(name))
    numbers = f"step {crash['step']}: loss {crash['loss']}, norm {crash['norm']}, lr {crash['lr']}"
    return [numbers, str(cause.get("what", "the cause is unknown")), *([where] if where else [])]


def cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """A tensor's row of the table."""
    numbers = ("" if row[name] is None else f"{row[name]:.4g}" for name in ("rms", "min", "max"))
    names = (row["at"], row["kind"], row["node"] or row["tensor"], row["tensor"], row["op"])
    return (*names, *numbers, row["nan"], row["inf"])


def largest(row: Mapping[str, Any]) -> float | None:
    """The largest magnitude of a tensor's finite numbers."""
    return max((abs(row[name]) for name in ("min", "max") if row[name] is not None), default=None)


def decades(value: float | None) -> float | None:
    """The power of ten of a magnitude; None for zero and no number."""
    return round(math.log10(abs(value)), 3) if value else None
