"""The records of an op check, made from its report."""

from __future__ import annotations

from core.testing.check_report import VariantReport
from core.verdicts import Verdict

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
        verdicts.append(Verdict(report.device, chip, dtype, not failures, checks, sizes, finding, smallest=least))
    return verdicts
