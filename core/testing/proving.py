"""The proof of a puzzle: its solution passes, its hole does not, and each wrong answer is refused with its own finding
and gets a hint. A hint that contains a line of the solution is refused too."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.testing.grading import SECONDS, grade
from core.testing.puzzle_types import Puzzle, PuzzleVerdict, answer_file, load_puzzle, read_answer

SOLUTION, HOLE, HINTS = "(solution)", "(hole)", "(hints)"
SHORT = 10  # characters of a line of code that a hint may well contain, such as `i < n`


@dataclass(frozen=True)
class Proof:
    """One promise of a puzzle. answer: "(solution)", "(hole)", "(hints)", or a wrong answer's name. fault: the reason
    why it is broken; "" where it holds."""

    puzzle: str
    answer: str
    verdict: PuzzleVerdict
    hint: str = ""
    fault: str = ""

    @property
    def holds(self) -> bool:
        """Whether the promise holds."""
        return not self.fault


def prove(
    path: Path,
    *,
    only: Callable[[str], bool] = lambda answer: True,
    seconds: float = SECONDS,
    imports: Sequence[str] = (),
    here: bool = False,
) -> Iterator[Proof]:
    """The proofs of a puzzle's file, one promise after another. only: which answers, by name. here: grade in this
    process, without limits, for tests of a course's content.

    Raises UsageError for files that cannot be read, BuildError for a puzzle that is at fault.
    """
    puzzle = load_puzzle(path)
    text = read_answer(answer_file(path, puzzle.task))
    yield Proof(path.stem, HINTS, PuzzleVerdict(), fault=revealed(puzzle, text))
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, source, expected) in enumerate(answers(puzzle, text)):
            if not only(name):
                continue
            file = Path(folder) / str(number) / f"{path.stem}{puzzle.task.suffix}"  # a process imports a path once
            file.parent.mkdir()
            file.write_text(source, "utf-8")
            verdict = puzzle.task.verdict(file) if here else grade(path, file, seconds=seconds, imports=imports)
            hint = puzzle.hint_for(verdict)
            yield Proof(path.stem, name, verdict, hint, broken(name, verdict, hint, expected))


def answers(puzzle: Puzzle, text: str) -> Iterator[tuple[str, str, str]]:
    """(name, text, pattern of the finding) of every answer that the puzzle promises something of."""
    solution = puzzle.solution(text)
    yield SOLUTION, solution, ""
    if not puzzle.bug:
        yield HOLE, puzzle.hole(text), "."
    for name, wrong in puzzle.wrong.items():
        yield name, wrong.applied(solution, name), wrong.finding


def broken(name: str, verdict: PuzzleVerdict, hint: str, expected: str) -> str:
    """How a promise is broken, "" if it is kept."""
    if name == SOLUTION:
        return "" if verdict.accepted else "the solution is refused"
    if verdict.accepted:
        return "accepted"
    if not re.search(expected, verdict.text, re.DOTALL):
        return f"the finding is not {expected!r}"
    return "" if hint or name == HOLE else "no hint for this finding"


def revealed(puzzle: Puzzle, text: str) -> str:
    """The first line of the hole's solution that a hint contains, as a fault."""
    shown = puzzle.hole(text)
    lines = [line.strip() for line in puzzle.solution(text).splitlines()]
    secret = [line for line in lines if len(line) > SHORT and line not in shown]
    for _, hint in puzzle.hints:
        if line := next((line for line in secret if line in hint), ""):
            return f"a hint contains the solution's line `{line}`"
    return ""
