"""Reports of the op check: the findings on a variant, as text and as JSON, with the failure to read first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import BuildError, CheckFailed
from core.testing.checks import NAMES
from core.testing.log import Failure, Log
from core.testing.shapes import label_as_shape
from core.verdicts import Sizes, largest, smallest

SHOWN = 4  # failures of a sub-check that are printed; the rest are counted


@dataclass
class VariantReport:
    """The findings of the check on one variant.

    checks: sub-check -> (times that it ran, worst relative error). times: label -> median milliseconds.
    worst: dtype -> sub-check -> worst error. sizes, smallest: dtype -> dim -> the largest, the smallest size of any
    example.
    skipped: example and dtype -> why the variant cannot run there. left_out: why nothing was checked, where a library
    that the variant calls is not there to be called. waiting: sub-checks that were not made, because an earlier one
    failed. gaps: lines of its kernels that no example runs. notes: remarks for its author. Neither is a fault.
    plugins: paths that the user gave, which a command that shows a failure repeats. compiled: the record of the
    compilations that passed, "" without one.
    """

    op: str
    variant: str
    device: str
    dtypes: tuple[str, ...]
    checks: dict[str, tuple[int, float]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: str = ""
    waiting: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    worst: dict[str, dict[str, float]] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    smallest: dict[str, dict[str, int]] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    compiled: str = ""

    @property
    def name(self) -> str:
        """OP.VARIANT."""
        return f"{self.op}.{self.variant}"

    @property
    def passed(self) -> bool:
        """Whether no sub-check failed."""
        return not self.failures

    def take(self, log: Log) -> None:
        """Fill in the log of the sub-checks."""
        self.checks = {n: (log.ran[n], log.worst[n]) for n in NAMES if n in log.ran}
        self.worst = log.by_dtype
        self.failures = log.failures

    def cover(self, examples: Mapping[str, Sequence[Sizes]]) -> None:
        """Record the sizes of the examples that the check runs, by dtype, in addition to earlier ones."""
        for dtype, sizes in examples.items():
            self.sizes[dtype] = largest([self.sizes.get(dtype, {}), *sizes])
            self.smallest[dtype] = smallest([self.smallest.get(dtype, {}), *sizes])

    def failed_checks(self) -> list[str]:
        """The names of the sub-checks that failed, in the order of docs/checks.md."""
        return [name for name in NAMES if any(f.check == name for f in self.failures)]

    def describe_failures(self, details: bool = False) -> str:
        """One line a failure: sub-check, finding and place, example and dtype; details: also the simulator's."""
        lines = [f"{self.name}: FAILED {', '.join(self.failed_checks())}"]
        seen: set[str] = set()
        for check in self.failed_checks():
            failures = [f for f in self.failures if f.check == check]
            new = [f for f in failures if likeness(f) not in seen]
            fresh = list({likeness(f): f for f in reversed(new)}.values())[::-1]
            seen |= {likeness(f) for f in new}
            for f in fresh[:SHOWN]:
                more = [f"      {f.details}"] if details and f.details else []
                lines += [f"  {check}: {f.message}{_where(f)}", *clues(f), *self.look_at(f), *more]
            if rest := len(failures) - len(fresh[:SHOWN]):
                lines.append(f"  {check}: and {rest} more" + (" like these" if fresh else " like those above"))
        return "\n".join(lines)

    @property
    def first(self) -> Failure:
        """The failure to read before all others: the likely cause of the rest."""
        return min(self.failures, key=rank)

    def describe_first(self) -> str:
        """The first failure alone: the finding, clues in its values, the remedy."""
        first = self.first
        lines = [f"  {first.check:<12} FAILED  {first.message}{_where(first)}", *clues(first), *self.look_at(first)]
        others = [name for name in self.failed_checks() if name != first.check]
        if self.waiting:
            lines.append(f"  {len(self.waiting)} other sub-checks wait for it; -v makes them all")
        elif others:
            lines.append(f"  failed too: {', '.join(others)}; -v shows them all")
        return "\n".join(lines)

    def look_at(self, failure: Failure) -> list[str]:
        """The command that shows a failure in a kernel line by line, where there is one."""
        shape = label_as_shape(failure.case) if failure.in_kernel else ""
        words = [f"--shape {word}" for word in shape.split()]
        words += [f"--dtype {failure.dtype}", *(f"--plugin {shlex.quote(path)}" for path in self.plugins)]
        command = ["core view", f"--kernel {self.name}", *words]
        return [f"      look: {' '.join(command)}"] if shape else []

    def as_json(self) -> dict[str, Any]:
        """The report as `core check --json` prints it."""
        return {
            "op": self.op,
            "variant": self.variant,
            "device": self.device,
            "passed": self.passed,
            "checks": {
                n: {"runs": runs, "worst": finite(worst), "passed": n not in self.failed_checks()}
                for n, (runs, worst) in self.checks.items()
            },
            "failures": [
                {
                    "check": f.check,
                    "message": f.message,
                    "error": finite(f.error),
                    "example": f.case,
                    "dtype": f.dtype,
                    "seen": f.seen,
                    "hint": f.hint,
                    "details": f.details,
                }
                for f in self.failures
            ],
            "waiting": self.waiting,
            "gaps": self.gaps,
            "notes": self.notes,
            "skipped": self.skipped,
            "left_out": self.left_out,
            "median_ms": self.times,
        }


# The order of failures of one variant, likeliest cause first: a NaN in a tensor that was never written is no clue
RANKS = {"schema": 0, "bounds": 2, "unchanged": 2, "written": 3}


def rank(failure: Failure) -> tuple[int, int]:
    """The order in which failures explain each other: a crash, memory, unwritten outputs, wrong values."""
    order = list(NAMES)
    return (1 if failure.raised else RANKS.get(failure.check, 4)), order.index(failure.check)


def clues(failure: Failure) -> list[str]:
    notes = (("seen", failure.seen), ("hint", failure.hint))
    return [f"      {label}: {text}" for label, text in notes if text]


def likeness(failure: Failure) -> str:
    """The same for findings that differ only in numbers: one of them is enough to read. A wrong value is known by its
    sub-check, its tensor and the request; an exception of a launcher, by its text."""
    words = failure.message.partition(": relative error")
    return (failure.check if words[1] else "") + re.sub(r"0x[0-9a-f]+|-?\d+", "#", words[0])


def _where(failure: Failure) -> str:
    return f"\n      in {failure.dtype}, example {failure.case}" if failure.case not in ("", "all") else ""


def finite(number: float) -> float | None:
    """JSON has no infinities."""
    return number if number - number == 0 else None


@dataclass
class CheckReport:
    """The reports of all requested variants."""

    variants: list[VariantReport]

    @property
    def passed(self) -> bool:
        """Whether every variant passed."""
        return all(v.passed for v in self.variants)

    def raise_failures(self) -> None:
        """CheckFailed with every failure, unless all passed; BuildError where nothing could be checked."""
        if self.variants and all(v.left_out for v in self.variants):
            reasons = "; ".join(f"{v.name}: {v.left_out}" for v in self.variants)
            raise BuildError(f"nothing could be checked on {self.variants[0].device}: {reasons}")
        failed = [v.describe_failures() for v in self.variants if not v.passed]
        if failed:
            raise CheckFailed("\n".join(failed), hint="docs/checks.md explains each sub-check")
