"""A hearing of a submission: contents, the truth, runs and comparisons, for the sub-verdicts of questions.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from core.judge.execution import Execution, Workbench
from core.judge.problem import BufferSpec, Dims, Problem, described
from core.judge.submission import Submission
from core.judge.verdict import Wrong
from core.sim.faults import KernelError, PtxError
from core.testing.compare import BOUNDS, Array, Bounds, bounds_for, difference, rounding
from core.testing.pattern import Compared, Scene, region, seen
from core.testing.runner import POISON, unwritten

# the kind of a KernelError -> the sub-verdict that it fails; "runs" for all others
FAULTS = {
    "out of bounds": "bounds", "race": "races", "uninitialised": "races", "in flight": "races", "early access": "races",
    "order": "repeatable"
}  # fmt: skip
ELEMENT = (
    1e3  # times the bound on the 2-norm: the bound of one element, relative to itself or the tensor's root mean square
)
FRESH, HARDER, REALER = 1000, 2000, 3000  # seeds of contents, so that no two questions have the same


OnProgress = Callable[[str, Any], None]  # ("doing", name of a sub-verdict), ("case", its name), ("check", SubVerdict)


def no_progress(kind: str, value: Any) -> None:
    """The `on_progress` of a caller without a display."""


Fault = KernelError | PtxError  # a run that breaks off: a fault of the kernel, or a lack of the simulator


class Waits(Exception):
    """A sub-verdict that cannot be made before another one passes."""


class Hearing:
    """The state that sub-verdicts share: contents, the truth, and runs in strict mode. seed: of all contents."""

    def __init__(
        self, problem: Problem, submission: Submission, seed: int = 0, on_progress: OnProgress = no_progress
    ) -> None:
        self.problem, self.submission, self.seed, self.on_progress = problem, submission, seed, on_progress
        self.notes: list[str] = []
        self._ran: dict[int, tuple[Mapping[str, Array], Execution | Fault]] = {}

    def contents(self, dims: Dims, number: int) -> dict[str, Array]:
        return self.problem.draw(dims, (self.seed, number))

    def strictly(self, number: int) -> tuple[Mapping[str, Array], Execution | Fault]:
        """(contents, outcome) of an awkward size in strict mode. An endless kernel is not waited for again."""
        endless = next((e for _, e in self._ran.values() if isinstance(e, KernelError) and e.kind == "endless"), None)
        if number not in self._ran and endless is not None:
            return {}, endless
        if number not in self._ran:
            dims = self.problem.sizes[number]
            contents = self.contents(dims, number)
            self.on_progress("case", f"{described(dims)}, in strict mode")
            try:
                outcome: Execution | Fault = self.bench(dims).run(contents, strict=True)
            except (KernelError, PtxError) as error:
                outcome = error
            self._ran[number] = contents, outcome
        return self._ran[number]

    def bench(self, dims: Dims, wide: bool = False) -> Workbench:
        return Workbench(self.submission, dims, wide)

    def completed(self) -> Iterator[tuple[Dims, Mapping[str, Array], Execution]]:
        """The awkward sizes whose run came to its end. Raises Waits where one did not: its fault is first."""
        for number, dims in enumerate(self.problem.sizes):
            contents, outcome = self.strictly(number)
            if isinstance(outcome, KernelError | PtxError):
                raise Waits(f"waits for {question(outcome)}")
            yield dims, contents, outcome

    def faults(self, check: str) -> None:
        """Wrong for the first run that broke off with a fault of this sub-verdict."""
        for number, dims in enumerate(self.problem.sizes):
            outcome = self.strictly(number)[1]
            if isinstance(outcome, KernelError | PtxError) and question(outcome) == check:
                raise faulty(outcome, described(dims))

    @cached_property
    def largest(self) -> tuple[Dims, Mapping[str, Array], Execution]:
        """The awkward size with most elements, where most threads meet."""
        return max(self.completed(), key=lambda one: sum(a.size for a in one[2].buffers.values()))

    def run(
        self,
        bench: Workbench,
        contents: Mapping[str, Array],
        case: str,
        fill: int = POISON,
        executor: str | None = "interpreter",
    ) -> Execution:
        """In fast mode, by the interpreter, which starts at once; None: by the fastest. A KernelError is Wrong."""
        self.on_progress("case", case)
        try:
            return bench.run(contents, fill=fill, executor=executor)
        except (KernelError, PtxError) as error:
            raise faulty(error, case) from None

    # --- right or wrong ------------------------------------------------------------------------------------------

    def hold(self, dims: Dims, contents: Mapping[str, Array], got: Execution, case: str, slack: float = 1.0) -> None:
        """Wrong for an input that changed, or an output that is not the truth's. slack: times the usual bounds."""
        check_inputs_unchanged(self.problem, contents, got, case)
        self.compare(dims, contents, got, case, slack)

    def compare(self, dims: Dims, contents: Mapping[str, Array], got: Execution, case: str, slack: float = 1.0) -> None:
        """Wrong for the first output that is not the truth's."""
        want = self.problem.right(contents, dims)
        single = self.problem.right(contents, dims, single=True)
        pairs = {}
        for name in self.problem.outputs:
            spec = self.problem.buffers[name]
            right = spec.values(spec.stored(want[name], got.buffers[name].shape)) if spec.integer else want[name]
            pairs[name] = Compared(spec.values(got.buffers[name]), right)
        most = largest(self.problem, contents)
        scene = Scene(pairs, dict(dims), {}, self.problem.narrowest_dtype)
        for name, pair in pairs.items():
            spec = self.problem.buffers[name]
            problem = exactly(pair) if spec.integer else self.nearly(spec, pair, single[name], most, slack)
            if not problem:
                continue
            hole = unwritten(got.buffers[name]) & scene.wrong(name)
            if hole.any() and name in owed(self.problem):
                raise missing_elements(name, hole, case)
            raise Wrong(f"{name}: {problem}", case=case, seen=seen(scene, name), hint=self.early_read(name, pair))

    def early_read(self, name: str, pair: Compared) -> str:
        """A hint for a result that is NaN where the truth is a number."""
        starts = name in owed(self.problem) and pair.got.dtype.kind == "f"
        if starts and (np.isnan(pair.got) & ~np.isnan(pair.want)).any():
            return f"{name} and scratch begin as not-a-number: does the kernel read one before it writes it?"
        return ""

    def nearly(self, spec: BufferSpec, pair: Compared, single: Array, most: float, slack: float) -> str:
        """The excess error of an output of floats as text; "" within the bounds. single: the truth in f32,
        most: the root mean square of the largest input."""
        with np.errstate(all="ignore"):
            held = spec.values(spec.stored(pair.want, pair.want.shape))  # its value in the element type
            narrow = spec.values(spec.stored(single, pair.want.shape))
        bounds = self.bounds(spec.dtype, pair.want.size, slack)
        want = np.where(np.isfinite(held), pair.want, held)
        finite = np.where(np.isfinite(want), want, 0.0)
        lost = lost_in_f32(pair.got, want, narrow, ELEMENT * bounds.norm)
        got = np.where(lost, want, pair.got)
        excuse = rounding(finite, np.where(lost | ~np.isfinite(want), finite, single), most, spec.dtype)
        error = difference(got, want)
        if not finite.any():  # where zero is expected everywhere there is no relative error
            far = bool(np.max(np.where(np.isnan(got - want), 0, np.abs(got - want)), initial=0) > bounds.norm)
            kinds = np.isnan(got) != np.isnan(want)
            return f"{error.described(bounds)}" if far or kinds.any() else ""
        far = error.worst.relative > ELEMENT * max(bounds.norm, excuse)
        return error.described(bounds) if far or error.exceeds(bounds, excuse) else ""

    def bounds(self, dtype: str, size: int, slack: float) -> Bounds:
        norm = self.problem.tolerance
        usual = Bounds(norm, norm) if norm is not None else bounds_for(BOUNDS[dtype], dtype, size)
        return Bounds(slack * usual.norm, slack * usual.projection)


def lost_in_f32(got: Array, want: Array, single: Array, share: float) -> Array:
    """Elements that f32 cannot give by the truth's own formula, as where a square is beyond its range.

    There the truth in f32 is no number, or is far from that in f64 and the kernel agrees with it.
    """
    with np.errstate(all="ignore"):
        sizes = np.abs(want[np.isfinite(want) & (want != 0)])
        usual = float(np.median(sizes)) if sizes.size else 0.0
        far = np.abs(single - want) > share * np.maximum(np.abs(want), usual)
        agrees = np.abs(got - single) <= share * np.maximum(np.abs(single), usual)
    return np.asarray(np.isfinite(want) & (~np.isfinite(single) | (far & agrees)))


def exactly(pair: Compared) -> str:
    """The difference of integers as text; "" where they agree."""
    off = pair.got != pair.want
    if not off.any():
        return ""
    at = np.unravel_index(int(np.argmax(off)), off.shape)
    place = [int(i) for i in at]
    return f"got {pair.got[at]} at {place}, expected {pair.want[at]}; {off.sum():,} of {off.size:,} are wrong"


def missing_elements(name: str, hole: Array, case: str) -> Wrong:
    first = [int(i) for i in np.unravel_index(int(np.argmax(hole)), hole.shape)]
    problem = f"{name}: {int(hole.sum()):,} of {hole.size:,} elements not written, the first at {first}"
    return Wrong(problem, case=case, seen=region(hole, "not written"))


def largest(problem: Problem, contents: Mapping[str, Array]) -> float:
    """The root mean square of the input where that is largest."""
    values = [problem.buffers[n].values(v) for n, v in contents.items() if not problem.buffers[n].integer]
    with np.errstate(all="ignore"):
        sizes = [float(np.sqrt(np.mean(np.square(v)))) for v in values]
    return max((s for s in sizes if np.isfinite(s)), default=1.0)


def question(error: Fault) -> str:
    """The sub-verdict that a run fails which broke off so."""
    return FAULTS.get(getattr(error, "kind", ""), "runs")


def faulty(error: Fault, case: str) -> Wrong:
    return Wrong(error.message, hint=error.hint, case=case, details=getattr(error, "details", ""))


def owed(problem: Problem) -> list[str]:
    """Outputs that hold nothing before: all but those updated in place, or zeroed."""
    return [name for name in problem.outputs if name not in problem.inputs and name not in problem.zeroed]


def check_inputs_unchanged(problem: Problem, contents: Mapping[str, Array], got: Execution, case: str) -> None:
    for name in problem.inputs:
        if name not in problem.outputs and got.buffers[name].tobytes() != contents[name].tobytes():
            raise Wrong(f"changed {name}, which is an input and no output", case=case)
