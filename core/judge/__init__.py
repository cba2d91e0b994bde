"""Compares a submitted CUDA kernel with a problem: a NumPy truth, shapes and a launch. No GPU is needed.

`core judge PROBLEM.py KERNEL.cu` and `judge(problem, path)` are the front doors. The files, from the ground up:
  problem.py      the question: buffers, launches, sizes, the truth
  submission.py   the file handed in: its includes, its PTX, the precision of its arithmetic
  execution.py    its launches on simulated memory, in buffers that give every misstep away
  verdict.py      sub-verdicts, as lines and as JSON
  hearing.py      contents, the truth, runs, comparisons
  questions.py    the sub-verdicts, one function each
  kernel_task.py  a problem as the task of a puzzle: named cases, budgets of counts (core.testing.puzzle)
  confined.py     all of that in a process of its own, with limits of time and memory
It knows no op and no plugin. docs/judge.md is the manual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of

if TYPE_CHECKING:
    from core.judge.confined import judge as judge
    from core.judge.kernel_task import KernelCase as KernelCase
    from core.judge.kernel_task import KernelTask as KernelTask
    from core.judge.problem import KernelLaunch as KernelLaunch
    from core.judge.problem import Problem as Problem
    from core.judge.verdict import Judgement as Judgement

__getattr__ = imports_of(__name__)
