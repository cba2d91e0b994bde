"""Courses and their students, for `core learn`: lessons in their order, the puzzles of each, a student's folder.

  course.py     a course's TOML file, and those that it extends
  workbook.py   a student's folder: her answers, and progress.json
  run_task.py   the task of a puzzle whose answer takes part in a training run
A course is content of a plugin (`core_courses`); its puzzles are core.testing.puzzle's. docs/course.md is the manual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of

if TYPE_CHECKING:
    from core.learning.course import load_course as load_course
    from core.learning.run_task import FinishedRun as FinishedRun
    from core.learning.run_task import RunTask as RunTask

__getattr__ = imports_of(__name__)
