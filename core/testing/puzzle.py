"""Puzzles of a course, for their authors: `Puzzle`, its tasks, `grade` and `prove`. docs/course.md is the manual.

A task is a CUDA kernel (`core.judge.KernelTask`), a Python function (`FunctionTask`) or an op (`OpTask`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of

if TYPE_CHECKING:
    from core.testing.grading import grade as grade
    from core.testing.proving import Proof as Proof
    from core.testing.proving import prove as prove
    from core.testing.puzzle_types import Puzzle as Puzzle
    from core.testing.puzzle_types import PuzzleTask as PuzzleTask
    from core.testing.puzzle_types import PuzzleVerdict as PuzzleVerdict
    from core.testing.puzzle_types import WrongAnswer as WrongAnswer
    from core.testing.puzzle_types import load_puzzle as load_puzzle
    from core.testing.python_tasks import FunctionCase as FunctionCase
    from core.testing.python_tasks import FunctionTask as FunctionTask
    from core.testing.python_tasks import OpTask as OpTask

__getattr__ = imports_of(__name__)
