"""A problem for the judge, a right submission to it, and verdicts in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.judge import KernelLaunch, Problem
from core.judge.questions import hear
from core.judge.submission import Submission
from core.judge.verdict import Judgement

SCALE = Problem(
    truth=lambda x: 2 * x,
    inputs={"x": "n"},
    outputs={"y": "n"},
    launches=KernelLaunch("scale", "y x n", grid="cdiv(n, 128)", block=128),
    sizes=[{"n": 1}, {"n": 259}],
    real=[{"n": 6000}],
)


def kernel(
    body: str, before: str = "", name: str = "scale", parameters: str = "float* y, const float* x, int n"
) -> str:
    """A kernel's source; i: the number of the thread in the grid."""
    start = "int i = blockIdx.x * blockDim.x + threadIdx.x;"
    return f'{before}\nextern "C" __global__ void {name}({parameters}) {{ {start}\n{body}\n}}'


RIGHT = kernel("if (i < n) y[i] = 2 * x[i];")


def changed(**fields: Any) -> Callable[[], Problem]:
    """SCALE with other fields, made when it is called."""
    return lambda: Problem(**{**vars(SCALE), **fields})


def heard(problem: Problem, text: str, seed: int = 0) -> Judgement:
    """The judgement on a source, without a process of its own."""
    return hear(problem, Submission(problem, text), seed)


def failure(judgement: Judgement) -> tuple[str, str]:
    """(the first sub-verdict that failed, its lines)."""
    first = next((c for c in judgement.checks if c.state == "failed"), None)
    return (first.name, "\n".join(first.lines())) if first else ("", "")
