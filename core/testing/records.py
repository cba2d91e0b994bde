"""The records of an op check, made from its report, and the files that keep them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from core import atomic_files
from core.op import Variant
from core.testing.check_report import VariantReport
from core.variant_sources import key_of
from core.verdicts import Row, Verdict, Verdicts, by_name, rows_in, verdict_of

OLDEST = 4000  # records that a store keeps; the oldest go first
LARGEST = 1e300  # JSON has no infinities
EVERY = ("", "all")  # dtypes of findings that belong to none: of the schema, of the compiler


def verdicts_of(report: VariantReport, chip: str) -> list[Verdict]:
    """One verdict a dtype in which the variant ran, or failed; none where nothing could be checked."""
    shared = {check: worst for dtype in EVERY for check, worst in report.worst.get(dtype, {}).items()}
    verdicts = []
    for dtype in report.dtypes:
        failures = [f for f in report.failures if f.dtype in (dtype, *EVERY)]
        if not report.sizes.get(dtype) and not failures:
            continue
        checks = {**shared, **report.worst.get(dtype, {})}
        finding = f"{failures[0].check}: {failures[0].message}" if failures else ""
        sizes, least = report.sizes.get(dtype, {}), report.smallest.get(dtype, {})
        verdict = Verdict(report.device, chip, dtype, not failures, checks, sizes, finding, smallest=least)
        verdicts.append(replace(verdict, compiled=report.compiled))
    return verdicts


def keep(verdicts: Verdicts, variant: Variant, verdict: Verdict, whole: bool = False) -> None:
    """Add a verdict to this machine's. whole: of the whole op check, which replaces one that failed before.

    Another process may do the same at the same time: the file is replaced whole.
    """
    stamp = {"op": variant.op, "variant": variant.name, "sources": key_of(variant, verdicts.registry)}
    stamp["numpy"] = np.__version__
    rows, before = [], None
    for row in (*rows_in(verdicts.path), *verdicts.unwritten):
        old = verdict_of(row) if all(row.get(k) == v for k, v in stamp.items()) else None
        if old is None or (old.where, old.dtype) != (verdict.where, verdict.dtype):
            rows.append(row)
        else:
            before = old
    if before is not None and not (whole and not before.passed):
        verdict = before.with_more(verdict)
    rows = [*rows, {**stamp, **as_row(verdict)}][-OLDEST:]
    try:
        write_rows(verdicts.path, rows)
    except OSError:
        verdicts.unwritten = rows
    verdicts.known[verdicts.path] = by_name(rows)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """One record a line. OSError passes."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    atomic_files.replace(path, f"[\n{lines}\n]\n".encode())


def as_row(verdict: Verdict) -> Row:
    """The record as JSON, errors with two digits."""
    row = asdict(verdict)
    row["checks"] = {name: float(f"{min(worst, LARGEST):.1e}") for name, worst in verdict.checks.items()}
    return {name: value for name, value in row.items() if value not in ("", (), {})}
