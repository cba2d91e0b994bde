"""Judgements: a sub-verdict for each question, and all of them as lines of text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

PASSED, FAILED, WAITING, LEFT_OUT = "passed", "failed", "waiting", "left out"
SHOWN = {PASSED: "ok", FAILED: "FAILED", WAITING: "waits", LEFT_OUT: "-"}

# sub-verdict -> its question, in their order
QUESTIONS = {
    "compiles": "the file compiles and has the problem's kernels with their arguments",
    "alone": "device code that reads no clock",
    "precision": "arithmetic as wide as the buffers",
    "bounds": "every access falls inside its buffer",
    "races": "no two threads use an element unordered",
    "runs": "no other fault: barriers, masks, alignment, endless loops",
    "written": "every element of the outputs is written",
    "unchanged": "inputs keep their contents",
    "awkward": "right at awkward sizes",
    "guards": "the same bits with the buffers elsewhere, in wide red zones",
    "repeatable": "the same bits again, in other orders of threads, for any contents of outputs",
    "fresh": "right again for new contents at the same addresses",
    "hard": "right for NaN, infinities, denormal, zero, huge and distant numbers",
    "real": "right at real sizes",
}


class Wrong(Exception):
    """A sub-verdict that fails. case: sizes and contents; seen: clues in the wrong values; details: the PTX."""

    def __init__(self, message: str, *, hint: str = "", case: str = "", seen: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message, self.hint, self.case, self.seen, self.details = message, hint, case, seen, details


@dataclass(frozen=True)
class SubVerdict:
    """The answer to one question. state: PASSED, FAILED, WAITING (for an earlier one) or LEFT_OUT (by the problem)."""

    name: str
    state: str
    message: str = ""
    hint: str = ""
    case: str = ""
    seen: str = ""
    details: str = ""

    @property
    def line(self) -> str:
        text = self.message or QUESTIONS[self.name]
        return f"  {self.name:<11} {SHOWN[self.state]:<7} {text}".rstrip()

    def lines(self, details: bool = False) -> Iterator[str]:
        """The line, and the details of a failure."""
        yield self.line
        if self.state == FAILED:
            notes = (("in", self.case), ("seen", self.seen), ("hint", self.hint), ("ptx", self.details * details))
            yield from (f"      {label}: {text}" for label, text in notes if text)


@dataclass
class Judgement:
    """All sub-verdicts on a submission. seed: of the drawn contents. notes: no faults, but worth knowing."""

    problem: str
    submission: str
    seed: int = 0
    checks: list[SubVerdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every question has an answer, and none of them is no."""
        answered = {check.name for check in self.checks}
        return answered == set(QUESTIONS) and all(c.state in (PASSED, LEFT_OUT) for c in self.checks)

    @property
    def failed(self) -> list[str]:
        """The questions that are answered with no."""
        return [check.name for check in self.checks if check.state == FAILED]

    def as_json(self) -> dict[str, Any]:
        """The verdict as `core judge --json` prints it."""
        return {
            "problem": self.problem,
            "submission": self.submission,
            "passed": self.passed,
            "failed": self.failed,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "checks": [asdict(check) for check in self.checks],
            "notes": self.notes,
        }
