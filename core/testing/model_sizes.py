"""A check of one variant at the sizes of a model, in steps that grow until they are reached or the time is over.

Rows, or sequences, are few, then more, while the sizes that a kernel sweeps (columns, classes, keys) are the
model's own from the start: a kernel that forgets all but its first tile is wrong in the first step already. Each
step is compared with the reference in f64. On a GPU, sizes at which the reference would take too long are compared
with the simplest other variant on the same GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.dtypes import widest_first
from core.errors import BuildError
from core.op import Op, Reference, Variant
from core.plan import Need
from core.registry import Registry
from core.testing.cached_decoding import at_once, check_decode
from core.testing.case import Case, make_case
from core.testing.checks import SUBCHECKS, addable, check_gradient
from core.testing.compare import bounds_of
from core.testing.devices import SimRunner
from core.testing.growing_sizes import ROUNDS, bytes_of, costs, estimate, steps_of, work_of
from core.testing.log import Log, StopChecks, compare, compare_gradients, trained
from core.testing.runner import CpuRunner, Runner
from core.testing.shapes import as_shape
from core.testing.trial import PLAIN, GradientRequest, Training, Trial
from core.testing.trials import modes_of, reference_of
from core.testing.truth import check_truth
from core.testing.update import GOOD, check_update
from core.verdicts import Verdict, largest, sizes_of, smallest

SMALLEST = 2  # of the op's examples, the smallest, are checked where nothing is known of a variant
REFERENCE_BYTES = 256 << 20  # of a step's tensors in f64: the draws and the reference's copies are on the host
DRAWN_BYTES = 1 << 30  # the same where another variant on the device takes the reference's place
OVER = "the time was over"


@dataclass(frozen=True)
class Task:
    """A variant in one dtype, and the sizes at which to check it.

    example: as an op's examples are. config: tiles; None for all candidates. examples: whether the smallest of the op's
    examples are checked first, under every request of a plan. whole: all sub-checks at exactly these sizes,
    without steps. decode: whether tokens are fed to a cache too. done: steps that passed before. seconds: when to begin
    no further step.
    """

    op: str
    variant: str
    dtype: str
    example: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    examples: bool = False
    whole: bool = False
    decode: bool = False
    done: int = 0
    seconds: float = math.inf
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.op}.{self.variant}"


def task_of(need: Need, examples: bool = False) -> Task:
    """The check of a plan's need: in a session of generation, decoding too."""
    names = need.op.name, need.variant.name
    return Task(*names, need.dtype, need.example, need.config, examples=examples, decode=need.decodes)


@dataclass(frozen=True)
class SizesOutcome:
    """The outcome: checks and sizes as in a Verdict. finding: the first failure. left: why a size was not reached, or
    why nothing could be checked. done: steps that passed."""

    checks: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    smallest: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    finding: str = ""
    left: str = ""
    seconds: float = 0.0
    done: int = 0

    @property
    def passed(self) -> bool:
        return not self.finding

    def with_more(self, later: SizesOutcome) -> SizesOutcome:
        """This outcome and that of the task continued."""
        checks = {n: max(self.checks.get(n, 0.0), later.checks.get(n, 0.0)) for n in {**self.checks, **later.checks}}
        sizes, seconds = largest([self.sizes, later.sizes]), self.seconds + later.seconds
        least, done = smallest([self.smallest, later.smallest]), max(self.done, later.done)
        return SizesOutcome(checks, sizes, later.finding, later.left, seconds, done, smallest=least)

    def verdict(self, device: str, chip: str, dtype: str, tried: Sequence[str] = ()) -> Verdict | None:
        """The record of it; None where nothing was checked."""
        if self.passed and not self.checks:
            return None
        checks, sizes, least = self.checks, self.sizes, self.smallest
        return Verdict(device, chip, dtype, self.passed, checks, sizes, self.finding, tuple(tried), smallest=least)


def one_line(message: str) -> str:
    """A message without its hint, its lines joined."""
    return "; ".join(line.strip() for line in message.partition("\n  hint:")[0].splitlines())


class Left(StopChecks):
    """A size that cannot be checked here, such as one beyond the memory."""


OnOutcome = Callable[[SizesOutcome], None]
OnActivity = Callable[[str], None]


def check_sizes(
    task: Task,
    registry: Registry,
    runner: Runner,
    report: OnOutcome = lambda outcome: None,
    on_activity: OnActivity = lambda text: None,
) -> SizesOutcome:
    """Check by the task. `report` gets the results so far after each step: the process may be ended at any time.
    `on_activity` gets the present activity."""
    op, variant = registry.op(task.op), registry.variant(task.op, task.variant)
    return Climb(task, op, variant, registry, runner, report, on_activity).run()


class Climb:
    """One task under way."""

    def __init__(
        self,
        task: Task,
        op: Op,
        variant: Variant,
        registry: Registry,
        runner: Runner,
        report: OnOutcome,
        on_activity: OnActivity,
    ) -> None:
        self.task, self.op, self.variant, self.registry, self.runner = task, op, variant, registry, runner
        self.report, self.on_activity = report, on_activity
        self.home = CpuRunner(registry)
        self.reference = reference_of(op, registry)
        self.log = Log(stop=True)
        self.sizes: dict[str, int] = {}
        self.smallest: dict[str, int] = {}
        self.began = time.perf_counter()
        self.left = ""
        self.done = task.done
        self.at = ""  # the sizes under way, as --shape has them

    def run(self) -> SizesOutcome:
        try:
            if self.task.examples:
                self._examples()
            self._whole() if self.task.whole else self._steps()
        except Left as error:
            self.left = str(error)
        except StopChecks:
            pass
        except MemoryError:
            self.left = "the machine's memory is too small"
        except BuildError as error:  # sizes that the op or the variant refuses
            self.left = str(error)
        return self._outcome()

    def _outcome(self) -> SizesOutcome:
        failed = self.log.failures[0] if self.log.failures else None
        finding = "" if failed is None else f"{failed.check}: {one_line(failed.message)}"
        if failed is not None:
            again = f"; core check {self.task.name} --shape {self.at}" if self.at else ""
            finding += f" (in {failed.dtype}, {failed.case}{again})"
        seconds = time.perf_counter() - self.began
        sizes, least = dict(self.sizes), dict(self.smallest)
        return SizesOutcome(dict(self.log.worst), sizes, finding, self.left, seconds, self.done, smallest=least)

    # --- the steps -------------------------------------------------------------------------------------------------

    def _examples(self) -> None:
        """The smallest examples, in every way; of a reference in f64 too, where it is compared with numeric
        derivatives."""
        dtypes = {self.task.dtype, *(("f64",) if isinstance(self.variant, Reference) else ())}
        cases = [make_case(self.op, e, self.task.seed, i) for i, e in enumerate(self._all_examples())]
        able = [c for c in cases if all(self._can(c, dtype) for dtype in dtypes)]
        few = sorted(able, key=elements_of)[:SMALLEST]
        check_truth(self.log, self.op, self.variant, self.reference, few, self.registry)
        for case in few:
            for dtype in widest_first(dtypes):
                self._all_checks(case, dtype)
                self._passed(case.dims)

    def _all_examples(self) -> list[Mapping[str, Any]]:
        return [*self.op.examples, *self.variant.examples]

    def _can(self, case: Case, dtype: str) -> bool:
        return self._trial(case, dtype, "forward").why_not() is None

    def _whole(self) -> None:
        case = make_case(self.op, self.task.example, self.task.seed)
        if why := self._trial(case, self.task.dtype, "forward").why_not():
            raise Left(why)
        self._all_checks(case, self.task.dtype)
        self._passed(case.dims)

    def _all_checks(self, case: Case, dtype: str) -> None:
        for name, check in SUBCHECKS.items():
            for mode in modes_of(self.op, self.variant):
                self.log.case, self.log.dtype = case.label, dtype
                self.on_activity(f"{name}, {case.label}")
                with self.log.caught(name):
                    check(self.log, self._trial(case, dtype, mode))

    def _steps(self) -> None:
        """Steps compared with the reference; on a GPU then one with another variant, at the host's largest sizes."""
        steps = list(steps_of(self.op, self.task.example))
        times = StepTimes(self.runner.slow)
        if self.done:
            self._without_races()
        for number, example in list(enumerate(steps))[self.done :]:
            work = work_of(self.op, example)
            if number and self._remaining() < times.seconds(work):
                self.left = OVER
                break
            if number and bytes_of(self.op, example) > REFERENCE_BYTES:
                self.left = "the reference would need more memory than a check may take"
                break
            start = time.perf_counter()
            self._step(example, self._own, first=number == 0)
            times.saw(work, time.perf_counter() - start)
            self.done = number + 1
        if self.left and self.runner.timed and self.runner.kind.compiles:
            self._beside_another([e for e in steps[self.done :] if bytes_of(self.op, e) <= DRAWN_BYTES], steps[-1])

    def _beside_another(self, able: Sequence[Mapping[str, Any]], whole: Mapping[str, Any]) -> None:
        """One step at the largest of these sizes, compared with the simplest other variant on the device."""
        peer = self._peer()
        if peer is None or not able or self._remaining() <= 0:
            return
        self._step(able[-1], lambda case, mode: self._beside(peer, case, mode))
        self.left = "" if able[-1] is whole else "the host's memory is too small for more"

    def _step(self, example: Mapping[str, Any], trial: Callable[[Case, str], Trial], first: bool = False) -> None:
        """Outputs and gradients at these sizes; of a reference, its derivative too where it is the first step."""
        case = make_case(self.op, example, self.task.seed, 1)
        self.at = as_shape(self.op, example)
        self.on_activity(f"at {self.at}")
        fed = self._trial(case, self.task.dtype, "forward")
        why, pieces = fed.why_not(), at_once(fed) if self.task.decode else 0
        if why and not pieces:
            if self.sizes or example != self.task.example:
                return  # fewer rows than the variant takes
            raise Left(why)
        for mode in () if why else modes_of(self.op, self.variant):
            self.log.case, self.log.dtype = case.label, self.task.dtype
            with self.log.caught("forward"):
                at_size(self.log, trial(case, mode))
            if first and isinstance(self.variant, Reference) and "f64" in self.variant.dtypes:
                self.log.dtype = "f64"
                check_gradient(self.log, self._trial(case, "f64", mode))
        if pieces:
            self.log.case, self.log.dtype = case.label, self.task.dtype
            fed.at_once = pieces if why else 0
            check_decode(self.log, fed)
        self._without_races()
        self._passed(fed.dims)

    def _without_races(self) -> None:
        """Run the simulator fast: races showed in the first step."""
        if isinstance(self.runner, SimRunner):
            self.runner.strict = False
            self.runner.held.clear()

    def _own(self, case: Case, mode: str) -> Trial:
        return self._trial(case, self.task.dtype, mode)

    def _trial(self, case: Case, dtype: str, mode: str) -> Trial:
        trial = Trial(case, self.variant, self.reference, dtype, mode, self.runner, self.home)
        if self.task.config is not None and not self.task.whole:
            trial.configs = self._tiles(trial.configs)
        return trial

    def _tiles(self, candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The tiles that the model takes, where they are candidates at these sizes too."""
        tiles = dict(self.task.config or {})
        return [tiles] if tiles in candidates else candidates[:1]

    def _passed(self, dims: Mapping[str, Any]) -> None:
        sizes = sizes_of(self.op, dims)
        self.sizes, self.smallest = largest([self.sizes, sizes]), smallest([self.smallest, sizes])
        self.report(self._outcome())

    def _remaining(self) -> float:
        return self.task.seconds - (time.perf_counter() - self.began)

    # --- another variant as the truth ------------------------------------------------------------------------------

    def _peer(self) -> Variant | None:
        """The simplest other variant for this device that can run at the task's sizes."""
        case_dims = self.registry.variants.get(self.op.name, {}).values()
        others = [v for v in case_dims if v.device == self.variant.device and v.name != self.variant.name]
        others = [v for v in others if self.task.dtype in v.dtypes and v.priority >= 0 and not v.tf32]
        able = [v for v in others if self.runner.can_run(v) is None and (v.has_backward or not self.op.gradient)]
        return min(able, key=lambda v: (v.priority, v.name), default=None)

    def _beside(self, peer: Variant, case: Case, mode: str) -> Trial:
        trial = NeighbourTrial(case, self.variant, self.reference, self.task.dtype, mode, self.runner, self.home)
        trial.peer = peer
        if self.task.config is not None:
            trial.configs = self._tiles(trial.configs)
        return trial


class StepTimes:
    """The times of steps. The first one does not predict the next, since it compiles kernels."""

    def __init__(self, simulated: bool) -> None:
        self.overhead, self.rate = costs(simulated)
        self.steps = list[tuple[float, float]]()

    def saw(self, work: float, seconds: float) -> None:
        self.steps.append((work, seconds))

    def seconds(self, work: float) -> float:
        """Seconds of a step of `work` FLOPs: by the last step, or at first by the device's known rate."""
        if len(self.steps) < 2:
            return self.overhead + ROUNDS * work / self.rate
        before, took = self.steps[-1]
        return self.overhead + max(0.0, took - self.overhead) * work / before


class NeighbourTrial(Trial):
    """A trial whose truth is another variant on the same device: both may be off by the bounds, in either direction."""

    peer: Variant

    def truth(self, absent: frozenset[str] = frozenset(), dtype: str = "f64") -> Training:
        key = ("", absent)
        if key not in self._truths:
            mode = "backward" if self.mode != "forward" and self.peer.has_backward else "forward"
            other = Trial(self.case, self.peer, self.reference, self.dtype, mode, self.runner, self.home)
            other.seeds = {n: v * 0 if n in absent else v for n, v in self.seeds.items()}
            self._truths[key] = other.train()
        return self._truths[key]

    def excuse(self, name: str, absent: frozenset[str] = frozenset()) -> float:
        return bounds_of(self.variant, self.dtype).norm + bounds_of(self.peer, self.dtype).norm


def at_size(log: Log, trial: Trial) -> None:
    """Outputs and gradients, then all gradients added to: the behaviour that depends on sizes."""
    if not trial.op.gradient:
        return check_update(log, trial, {GOOD: {}})
    got = trained(log, "forward", trial)
    if got is None:
        return None
    for name, value in got.outputs.items():
        compare(log, "forward", trial, name, value, trial.truth().outputs[name])
    if not got.gradients:
        return None
    compare_gradients(log, "gradient", trial, got, PLAIN)
    if adds := addable(trial):
        request = GradientRequest(add=frozenset(adds))
        added = trained(log, "accumulate", trial, request)
        if added is not None:
            compare_gradients(log, "accumulate", trial, added, request, " (adding)")
    return None


def share(remaining: float, waiting: Sequence[tuple[Op, Mapping[str, Any]]], simulated: bool, least: float) -> float:
    """Seconds for the first of the (op, example) that wait, by the estimates of the first step of each; at least
    `least`, and twice its part, since most take less."""
    parts = [estimate(op, next(steps_of(op, example)), simulated) for op, example in waiting]
    return min(remaining, max(least, 2 * remaining * parts[0] / sum(parts)))


def rounds(count: int, outcomes: Mapping[int, SizesOutcome]) -> Iterator[list[int]]:
    """The numbers of all items, then of those for which the time was over, as long as they get anywhere."""
    yield list(range(count))
    before: dict[int, int] = {}
    while again := [n for n, f in outcomes.items() if f.passed and f.left == OVER and f.done > before.get(n, -1)]:
        before |= {n: outcomes[n].done for n in again}
        yield sorted(again)


def elements_of(case: Case) -> int:
    return sum(v.size for v in case.values.values() if v is not None)
