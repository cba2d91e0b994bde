"""A puzzle of a course: a task that grades an answer, hints by finding, and the wrong answers that it must refuse.

The hole that a student fills and the solution are one file, the answer's file, so that they cannot drift apart:

    //[ which element is mine, and is there one?
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + 10;
    //]

Python has `#[` and `#]`. `Puzzle.hole` replaces each marked region by its question; `Puzzle.solution` drops the marks.
Tasks are in core.judge.kernel_task (CUDA kernels) and core.testing.python_tasks (functions, ops).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import BuildError, UsageError
from core.outside import read_utf8
from core.testing.author_file import LONGEST, load_object

# the stages of a verdict, in the order in which a student can use a finding
STAGES = {
    "compiles": "the file compiles, and has the puzzle's names",
    "runs": "no fault: bounds, races, barriers, exceptions, endless loops",
    "written": "every element of the results is written",
    "right": "the results are those of the NumPy truth",
    "cheap": "the work is within the puzzle's budget",
}
FEWEST_WRONG = 3  # wrong answers of a puzzle
SYNTAX = ("^compiles: syntax", "Python cannot read that line. Which sign is missing there or one line above: a "
                               "bracket, a colon, a quote? Do the lines of a block begin in one column?")  # fmt: skip
USUAL = (  # pattern of the verdict's text -> the hint for a finding of which a puzzle has none
    ("NameError", "Python does not know that name there. Is it spelt as in the lines above; is it one of t's, as t.x; "
                  "is its module imported, as in `import numpy as np`?"),
    ("t has no '", "t has the names that the finding lists. Backward has the gradients, and what `reads` keeps for it: "
                   "which of them can make the value that is missing?"),
    ("^runs: race", "Two threads meet at one element, and nothing orders them. Has each element one owner? If one "
                    "thread reads what another wrote: which barrier stands between the two?"),
    ("^runs: endless", "A loop does not end. Which value should end it, and does it change in each turn?"),
    ("^compiles", "The first error names a line. Which sign or name is missing there, or one line above?"),
)  # fmt: skip
MARKS = {".cu": "//", ".py": "#"}  # suffix of an answer's file -> how its comments begin
HOLES = {".cu": "// YOUR TURN: ", ".py": "...  # YOUR TURN: "}

OnActivity = Callable[[str], None]  # gets the name of the running case


def no_display(case: str) -> None:
    """The `on_activity` of a caller without a display."""


@dataclass(frozen=True)
class PuzzleVerdict:
    """A verdict: accepted, or one finding, the first that matters.

    stage: of STAGES; "" for an accepted answer. kind: a short fixed word, such as "race", "not written", "sectors".
    case: sizes and contents. seen: a clue in wrong values. hint: the checker's own, not the puzzle's. details: for -v.
    printed: the output of the student's code. seconds: wall time.
    """

    stage: str = ""
    kind: str = ""
    message: str = ""
    case: str = ""
    seen: str = ""
    hint: str = ""
    details: str = ""
    printed: str = ""
    seconds: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether there is no finding."""
        return not self.stage

    @property
    def text(self) -> str:
        """The finding in one text, which the patterns of hints and of wrong answers search: "runs: race: ..."."""
        return "" if self.accepted else f"{self.stage}: {self.kind}: {self.message}\nin {self.case}\nseen {self.seen}"


class PuzzleTask(ABC):
    """The graded half of a puzzle. suffix: of its answers' files, ".cu" or ".py". seconds: of processor time that a
    verdict may take, where it is more than usual."""

    suffix: str = ".cu"
    seconds: float = 0.0

    @abstractmethod
    def verdict(self, answer: Path, on_activity: OnActivity = no_display) -> PuzzleVerdict:
        """The verdict on an answer's file, in this process and without limits.

        Raises UsageError for a file that cannot be read, BuildError for a task that is at fault itself.
        """


class WrongAnswer:
    """A wrong answer, as replacements in the solution, and the finding that refuses it: a pattern (regex) that
    `PuzzleVerdict.text` must contain: `WrongAnswer("out of bounds", ("if (i < n) ", ""))`."""

    def __init__(self, finding: str, *changes: tuple[str, str]) -> None:
        self.finding, self.changes = finding, changes

    def applied(self, solution: str, name: str) -> str:
        """The text of the wrong answer. Raises BuildError for a replacement that changes nothing."""
        for old, new in self.changes:
            if old not in solution:
                raise BuildError(f'wrong answer "{name}": the solution has no text {old!r}')
            solution = solution.replace(old, new)
        return solution


@dataclass(frozen=True)
class Puzzle:
    """A puzzle. title: one line. task: the grader of an answer.

    hints: (pattern, hint) pairs; the first whose pattern the finding contains is given, a question and no answer.
    wrong: name -> WrongAnswer, three at least. start: for "find the bug", the wrong answer that the student begins
    with; "" for a hole. why: a paragraph with the solution. place: for a bug of a kind that exists in published code,
    the repository, file and line. minutes: of a student.
    Raises BuildError for fewer than three wrong answers, for invalid patterns, for an unknown start.
    """

    title: str
    task: PuzzleTask
    hints: Sequence[tuple[str, str]]
    wrong: Mapping[str, WrongAnswer]
    start: str = ""
    why: str = ""
    place: str = ""
    minutes: int = 0
    files: Mapping[str, str] = field(default_factory=dict)  # further files of the student: name -> text

    def __post_init__(self) -> None:
        if len(self.wrong) < FEWEST_WRONG:
            raise BuildError(f"{self.title}: {len(self.wrong)} wrong answers; expected {FEWEST_WRONG} or more",
                             hint="they are the mistakes that students make, and the test of the hints")  # fmt: skip
        if self.start and self.start not in self.wrong:
            raise BuildError(f'{self.title}: start "{self.start}" is not a wrong answer', hint=", ".join(self.wrong))
        for pattern in (*(p for p, _ in self.hints), *(w.finding for w in self.wrong.values())):
            try:
                re.compile(pattern)
            except re.error as error:
                raise BuildError(f"{self.title}: the pattern {pattern!r}: {error}") from None

    @property
    def bug(self) -> bool:
        """Whether the student begins with a bug, and not with a hole."""
        return bool(self.start)

    def hint_for(self, verdict: PuzzleVerdict) -> str:
        """The puzzle's hint for a finding, else a usual one; "" where there is none. A line that Python cannot read has
        the usual one first: its text may fit a pattern that the puzzle has for other findings."""
        pairs = (SYNTAX, *self.hints, *USUAL)
        hints = (hint for pattern, hint in pairs if re.search(pattern, verdict.text, re.DOTALL))
        return "" if verdict.accepted else next(hints, "")

    def solution(self, text: str) -> str:
        """The answer's file without its marks."""
        mark = re.escape(MARKS[self.task.suffix])
        return re.sub(rf"^[ \t]*{mark}[\[\]].*\n", "", text, flags=re.MULTILINE)

    def hole(self, text: str) -> str:
        """The answer's file as the student gets it: with its bug, or with a question in place of each region."""
        if self.start:
            return self.wrong[self.start].applied(self.solution(text), self.start)
        mark, turn = re.escape(MARKS[self.task.suffix]), HOLES[self.task.suffix]
        region = rf"^([ \t]*){mark}\[ ?(.*?)\n.*?^[ \t]*{mark}\]\n"
        return re.sub(region, rf"\g<1>{turn}\g<2>\n", text, flags=re.MULTILINE | re.DOTALL)


def load_puzzle(path: Path) -> Puzzle:
    """The puzzle of a Python file. Raises UsageError for a file that cannot be read, BuildError for one without."""
    return load_object(path, Puzzle, "puzzle", "PUZZLE = Puzzle(title=..., task=..., hints=[...], wrong={...})")


def answer_file(puzzle: Path, task: PuzzleTask) -> Path:
    """The answer's file beside a puzzle's: p01_guard.cu, or x1_graph_answer.py."""
    return puzzle.with_suffix(".cu") if task.suffix == ".cu" else puzzle.with_name(f"{puzzle.stem}_answer.py")


def read_answer(path: Path) -> str:
    """The text of an answer. Raises UsageError for a file that is no readable text."""
    return read_utf8(UsageError, path, LONGEST)
