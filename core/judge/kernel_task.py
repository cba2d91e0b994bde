"""The task of a puzzle whose answer is a CUDA kernel: a problem of the judge, in named cases with budgets of counts.

A case runs in strict mode in the judge's buffers; the results are compared with the NumPy truth; then the cases with a
budget run again and are counted. The verdict has one finding, of the earliest stage that fails, in the first such case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BuildError, did_you_mean
from core.judge.execution import Execution, Workbench
from core.judge.hearing import Hearing, check_inputs_unchanged, owed
from core.judge.problem import Dims, Problem, described
from core.judge.submission import Submission, place
from core.judge.verdict import Wrong
from core.sim.counting import Counts
from core.sim.faults import KernelError, PtxError
from core.testing.compare import Array
from core.testing.pattern import Compared, Scene, region
from core.testing.puzzle_types import OnActivity, PuzzleTask, PuzzleVerdict, no_display
from core.testing.runner import OTHER, unwritten

LIMIT = 10_000  # branches of a thread block before its kernel is called endless: a second; puzzles are small
BUDGETS = tuple(f.name for f in fields(Counts))
UNITS = {
    "sectors": "sectors of global memory", "conflicts": "bank conflicts", "shared": "accesses to shared memory",
    "requests": "accesses to global memory", "atomics": "atomic accesses", "contended": "turns at one address",
}  # fmt: skip
Contents = Callable[[np.random.Generator, dict[str, int]], Mapping[str, Any]] | Mapping[str, Any]


@dataclass(frozen=True)
class KernelCase:
    """A launch of the kernel. dims: sizes by name. name: for findings and hints.

    contents: of some inputs, as (rng, dims) -> name -> values, or the mapping itself; the others are random. budget:
    field of core.sim.counting.Counts (sectors, conflicts, shared, requests, ...) -> the most that is accepted.
    """

    dims: Dims
    name: str = ""
    contents: Contents | None = None
    budget: Mapping[str, int] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The case as findings name it."""
        return ", ".join(filter(None, (described(self.dims), self.name)))


class KernelTask(PuzzleTask):
    """A CUDA kernel with a NumPy truth. cases: KernelCase, or dims alone; the simplest first.

    branches: of a thread block, after which a kernel is called endless.
    without: PTX opcode, or its beginning ("cvt.rn.bf16") -> the reason why an answer may not use it. All other fields
    are those of core.judge.Problem: truth, inputs, outputs, scratch, zeroed, scalars, launches, tolerance, repeatable,
    narrow, defines. Raises BuildError for parts that do not fit together.
    """

    suffix = ".cu"

    def __init__(
        self,
        truth: Callable[..., Any],
        *,
        cases: Sequence[KernelCase | Dims],
        without: Mapping[str, str] | None = None,
        branches: int = LIMIT,
        **problem: Any,
    ) -> None:
        self.cases = [one if isinstance(one, KernelCase) else KernelCase(one) for one in cases]
        self.problem = Problem(truth, sizes=[one.dims for one in self.cases], **problem)
        self.without, self.branches = dict(without or {}), branches
        for name in (name for one in self.cases for name in one.budget):
            if name not in BUDGETS:
                raise BuildError(f'a budget of "{name}"{did_you_mean(name, BUDGETS)}', hint=", ".join(BUDGETS))

    def verdict(self, answer: Path, on_activity: OnActivity = no_display) -> PuzzleVerdict:
        """See PuzzleTask; the stages run in their order, each over all cases."""
        submission = Submission.read(self.problem, answer, self.branches)
        grading = KernelGrading(self, submission, on_activity)
        for stage in (grading.compiles, grading.runs, grading.written, grading.right, grading.cheap):
            if verdict := stage():
                return self.plain(verdict, submission)
        return PuzzleVerdict()

    def plain(self, verdict: PuzzleVerdict, submission: Submission) -> PuzzleVerdict:
        """The verdict without words that a student has no use for: the kernel's name, the folder, the kind again."""
        message = submission.plain(verdict.message)
        for launch in self.problem.each_launch:
            message = message.removeprefix(f"kernel {launch.kernel}, ")
        message = message.replace(f": {verdict.kind}: ", ": ", 1)
        hint, details = submission.plain(verdict.hint), submission.plain(verdict.details)
        return replace(verdict, message=message, hint=hint, details=details)

    def contents(self, number: int) -> dict[str, Array]:
        """Input -> contents of a case, any shape and dtype, as the kernel's memory has them."""
        case, problem = self.cases[number], self.problem
        if case.contents is not None:
            own = case.contents
            problem = replace(problem, contents=own if callable(own) else lambda rng, dims: own)
        return problem.draw(case.dims, (0, number))


class KernelGrading:
    """One answer's stages. A stage returns the verdict of its first finding, or None."""

    def __init__(self, task: KernelTask, submission: Submission, on_activity: OnActivity) -> None:
        self.task, self.problem, self.submission, self.on_activity = task, task.problem, submission, on_activity
        self.hearing = Hearing(task.problem, submission)
        self.ran: list[tuple[KernelCase, Mapping[str, Array], Execution]] = []

    def compiles(self) -> PuzzleVerdict | None:
        try:
            Workbench(self.submission, self.task.cases[0].dims).check_arguments()
            for kernel, ins in self.submission.instructions if self.task.without else ():
                name = ".".join(ins.names)
                if why := next((why for start, why in self.task.without.items() if name.startswith(start)), ""):
                    return PuzzleVerdict("compiles", "rule", f"{place(kernel, ins)} uses {name}: {why}")
        except (PtxError, BuildError, Wrong) as error:
            return PuzzleVerdict("compiles", "compile", error.message, hint=error.hint)
        return None

    def runs(self) -> PuzzleVerdict | None:
        for number, case in enumerate(self.task.cases):
            self.on_activity(case.words)
            contents = self.task.contents(number)
            try:
                outcome = Workbench(self.submission, case.dims).run(contents, strict=True)
            except (KernelError, PtxError) as error:
                kind = getattr(error, "kind", "not simulated")
                details = getattr(error, "details", "")
                return PuzzleVerdict("runs", kind, error.message, case.words, hint=error.hint, details=details)
            self.ran.append((case, contents, outcome))
        return None

    def written(self) -> PuzzleVerdict | None:
        for case, contents, got in self.ran:
            for name in owed(self.problem):
                hole = unwritten(got.buffers[name])
                if hole.any():  # a value may be the very bytes of the fill: another fill stays as well
                    again = Workbench(self.submission, case.dims).run(contents, fill=OTHER, executor="interpreter")
                    hole &= unwritten(again.buffers[name], OTHER)
                if hole.any():
                    at, more, size = first(hole), int(hole.sum()) - 1, hole.size
                    rest = f", nor are {more:,} more of {size:,}" if more else f", one of {size:,}"
                    message = f"{name}{at} is not written{rest} elements of {name}"
                    return PuzzleVerdict("written", "not written", message, case.words, region(hole, "not written"))
        return None

    def right(self) -> PuzzleVerdict | None:
        for case, contents, got in self.ran:
            try:
                check_inputs_unchanged(self.problem, contents, got, case.words)
            except Wrong as wrong:
                return PuzzleVerdict("right", "input changed", wrong.message, case.words)
            try:
                self.hearing.compare(case.dims, contents, got, case.words)
            except Wrong as wrong:
                message = self.plainly(case, contents, got) or wrong.message
                return PuzzleVerdict("right", "wrong", message, case.words, wrong.seen, wrong.hint, wrong.message)
        for case, _, got in self.ran:
            if order := next((f for f in got.findings if f.kind == "order"), None):
                return PuzzleVerdict("right", "order", order.message, case.words, hint=order.hint)
        return None

    def plainly(self, case: KernelCase, contents: Mapping[str, Array], got: Execution) -> str:
        """The first wrong element as text; "" where all differences are small."""
        want = self.problem.right(contents, case.dims)
        specs = self.problem.buffers
        pairs = {name: Compared(specs[name].values(got.buffers[name]), want[name]) for name in self.problem.outputs}
        scene = Scene(pairs, dict(case.dims))
        for name, pair in pairs.items():
            off = scene.wrong(name) if not specs[name].integer else np.asarray(pair.got != pair.want)
            if off.any():
                at = np.unravel_index(int(np.argmax(off)), off.shape)
                return (f"{name}{first(off)} is {pair.got[at]:.6g}, and should be {pair.want[at]:.6g}; "
                        f"{off.sum():,} of {off.size:,} elements of {name} are wrong")  # fmt: skip
        return ""

    def cheap(self) -> PuzzleVerdict | None:
        for number, case in enumerate(self.task.cases):
            if not case.budget:
                continue
            counts = Workbench(self.submission, case.dims).run(self.task.contents(number), count=True).counts
            for name, most in case.budget.items():
                if (spent := getattr(counts, name)) > most:
                    unit = UNITS.get(name, name)
                    message = f"right, but it takes {spent:,} {unit}; {most:,} are enough"
                    return PuzzleVerdict("cheap", name, message, case.words)
        return None


def first(mask: Array) -> list[int]:
    """The index of the first True."""
    return [int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape)]
