"""CPU seconds of the verdicts of `core learn check`, for the solution, the hole and each wrong answer of every puzzle.

As in `core learn check`, a forked process that has imported the grader makes each verdict. A first round, which is not
counted, fills the cache of compiled kernels.

    python benchmarks/course.py [PUZZLE]...
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import core.judge.kernel_task  # noqa: F401  imports of the process that forks
import core.testing.python_tasks  # noqa: F401
from core.learning import load_course
from core.testing import load_registry
from core.testing.proving import answers
from core.testing.puzzle import load_puzzle
from core.testing.puzzle_types import answer_file, read_answer

AIM = 0.5  # seconds


def seconds(puzzle: Path, answer: Path) -> float:
    """CPU seconds of one verdict, in a process of its own."""
    child = os.fork()
    if not child:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        load_puzzle(puzzle).task.verdict(answer)
        os._exit(0)
    used = os.wait4(child, 0)[2]
    return used.ru_utime + used.ru_stime


def rows(names: list[str]) -> Iterator[tuple[str, list[float]]]:
    """(puzzle, seconds of its verdicts, the solution's first)."""
    course = load_course(load_registry(), "course")
    for name in names or course.puzzles:
        file = course.puzzle_file(course.puzzle(name))
        puzzle = load_puzzle(file)
        with tempfile.TemporaryDirectory() as folder:
            used = []
            for number, (_, text, _) in enumerate(answers(puzzle, read_answer(answer_file(file, puzzle.task)))):
                answer = Path(folder) / str(number) / f"{file.stem}{puzzle.task.suffix}"
                answer.parent.mkdir()
                answer.write_text(text, "utf-8")
                seconds(file, answer)
                used.append(seconds(file, answer))
        yield file.stem, used


def main() -> None:
    """Print a row for each puzzle, and the share of verdicts within the aim."""
    every: list[float] = []
    print("| puzzle | verdicts | solution | median | longest |\n|---|--:|--:|--:|--:|")
    for name, used in rows(sys.argv[1:]):
        numbers = (used[0], statistics.median(used), max(used))
        print(f"| {name} | {len(used)} | " + " | ".join(f"{n:.2f}" for n in numbers) + " |", flush=True)
        every += used
    within = sum(one <= AIM for one in every)
    print(f"\n{within} of {len(every)} verdicts within {AIM} s; median {statistics.median(every):.2f} s")


if __name__ == "__main__":
    main()
