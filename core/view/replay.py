"""Any step of a run again, with every tensor: from a checkpoint before it, in memory, to the middle of the step.

A batch follows from the step's number, and a resumed run repeats an unbroken one bit for bit. So a run records no
tensors: a step is run again with the run's own engine settings and recorded choices. Its folder is read only.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from core import checkpoint
from core.checkpoint import Checkpoint
from core.engine import Engine, Record, TraceEvent
from core.errors import CheckpointError, UsageError
from core.measure.estimate import estimate_seconds
from core.plan import TRAIN
from core.tokenizers.tokenizer import Tokenizer
from core.train.detect import Detector
from core.train.display import Display
from core.train.resume import fill_from
from core.train.same_data import check_same_data
from core.train.start import fill, find_weights
from core.train.wiring import batches_of, learning_rate
from core.view.run_record import RunRecord
from core.words import duration

Array = np.ndarray[Any, Any]
Batches = Sequence[Mapping[str, Array]]
Limits = tuple[float, float]
LONG = 60.0  # seconds; a longer replay needs a second word
TRACED = 4  # the step itself: run once, put back, and run op by op
RECENT = 50  # steps whose times give that of one


def replay(
    run: str | os.PathLike[str],
    step: int,
    *,
    device: str = "",
    plugins: Sequence[str] = (),
    unfused: bool = False,
    yes: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> ReplayedStep:
    """Step `step` of the run in the folder `run`, counted from 1 as in its metrics, stopped before its update.

    It is no method of `core.load`'s Model, which has neither data nor an optimizer, and another engine than the run's.
    Works while the run is going on. device: where; "" for the run's own, or the one of this machine where that is not
    here. unfused: each node separately, with all its tensors and numbers that are near. yes: also where it is estimated
    to take over a minute. `say`: called with the estimate first.

    Raises UsageError for a folder that is no run's, a step that it does not have, and a long replay without `yes`;
    CheckpointError, DataError, DeviceError.
    """
    return replay_of(RunRecord(Path(run), plugins, device, unfused), step, yes=yes, say=say)


@dataclass(frozen=True)
class Repeated:
    """A step's numbers, run again and as the run's metrics have them; None where they have none."""

    step: int
    loss: float
    norm: float
    run_loss: float | None = None
    run_norm: float | None = None

    @property
    def equal(self) -> bool:
        """Whether loss and norm are the run's own, bit for bit."""
        return (self.loss, self.norm) == (self.run_loss, self.run_norm)

    @property
    def compared(self) -> bool:
        """Whether the run's metrics have the step."""
        return self.run_loss is not None


class ReplayedStep:
    """A training step of a run, stopped before its update: all its values can be read, any number
    of times.

    run: its record. step: counted from 1. began: the steps that the checkpoint held, 0 for the run's start. batches:
    input -> integers (B, T), one mapping a micro-step. lr. record: loss, norm, and whether the update was made.
    steps: each one that was run again. engine: it holds the parameters before the update.
    """

    def __init__(
        self, run: RunRecord, began: int, steps: list[Repeated], batches: Batches, lr: float, limits: Limits
    ) -> None:
        """The engine is before the step after `steps`. limits: the loss and norm above which nothing updates."""
        self.run, self.began, self.steps, self.batches, self.lr = run, began, steps, batches, lr
        self.step = began + len(steps) + 1
        self.engine: Engine = run.engine
        self.record, self._after = self._stepped(limits)
        self._complete = False  # whether the gradients in memory are those of the whole step
        steps.append(compared(run, self.step, self.record))

    def _stepped(self, limits: Limits) -> tuple[Record, dict[str, Array]]:
        """Run the step with its update, keep its numbers and the parameters after it, and put these back before it."""
        engine = self.engine
        before = {name: array.copy() for name, array in engine.parameters().items()}
        record = engine.step(self.batches, self.lr, limits)
        after = {name: array.copy() for name, array in engine.parameters().items()}
        engine.load_parameters(before)
        return record, after

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The run's tokenizer; None for data of ids alone."""
        return self.run.data.tokenizer

    @property
    def exact(self) -> bool:
        """Whether every loss and norm that was run again is the run's own, bit for bit."""
        return all(one.equal for one in self.steps)

    @property
    def differences(self) -> list[Repeated]:
        """The steps whose numbers are not the run's own."""
        return [one for one in self.steps if one.compared and not one.equal]

    @property
    def label(self) -> str:
        """The replay as text: exact, or near and the difference."""
        steps = f"{counted(len(self.steps))} run again"
        if self.exact:
            return f"exact: {steps}, losses and norms are the run's own, bit for bit"
        if not self.differences:
            return f"not compared: the metrics lack {sum(not one.compared for one in self.steps)} of {steps}"
        most = max(abs(one.loss - (one.run_loss or 0.0)) for one in self.differences)
        ours = f"{self.run.kind.name} in {self.engine.precision}"
        theirs = f"{self.run.place} in {self.run.variants.get('precision', 'an unknown precision')}"
        where = "" if ours == theirs else f" on {ours}, and the run was on {theirs}"
        return f"near: {steps}{where}; losses differ by up to {most:.3g}"

    def events(self) -> Iterator[tuple[int, TraceEvent]]:
        """(micro-step, event) of each op of the step, forward and backward, as the run's plan has them.

        Tensors are views of memory that later ops use again: copy those that you keep.
        """
        self._complete = False
        yield from self.engine.replay(self.batches)
        self._complete = True

    def gradients(self) -> dict[str, Array]:
        """Parameter -> its gradient over all micro-steps, unclipped: copies, f32 or f64, the parameter's shape."""
        if not self._complete:
            for _ in self.events():
                pass
        return {name: array.copy() for name, array in self.engine.parameter_gradients()}

    def parameters(self) -> Mapping[str, Array]:
        """Parameter -> its numbers before the update, f32 or f64, the graph's shape."""
        return self.engine.parameters()

    def updates(self) -> dict[str, Array]:
        """Parameter -> its change by the update, f32 or f64, the graph's shape."""
        before = self.engine.parameters()
        return {name: after - before[name] for name, after in self._after.items()}


# --- getting there -------------------------------------------------------------------------------------------------


def replay_of(
    run: RunRecord, step: int, *, yes: bool = False, say: Callable[[str], None] = lambda text: None
) -> ReplayedStep:
    """`replay` of a run that was opened."""
    check_step(run, step)
    start = checkpoint_before(run, step)
    began = start.step if start else 0
    if start is None and run.metrics and run.metrics[0]["step"] > 1:
        raise UsageError(
            f"{run.name}: it starts at step {run.metrics[0]['step']}, and no checkpoint before step {step} is kept",
            hint="replay the run whose checkpoint it started from",
        )
    seconds = estimate(run, step - began)
    where = f"from the checkpoint of step {began}" if start else "from the run's start"
    say(f"step {step}: {counted(step - began)} {where}, about {duration(max(1.0, seconds))} {run.kind.where}")
    if seconds > LONG and not yes:
        raise UsageError(
            f"step {step} of {run.name}: {counted(step - began)} {where} take about {duration(seconds)}",
            hint=f"--yes runs them; a step soon after a checkpoint takes less: {kept_steps(run)}",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(invalid value|overflow|divide by zero) encountered", RuntimeWarning)
        return walked(run, step, start)


def counted(steps: int) -> str:
    """A number of steps as text."""
    return f"{steps:,} step{'s' * (steps != 1)}"


def check_step(run: RunRecord, step: int) -> None:
    """UsageError for a step that the run's config does not have."""
    last = run.config.train.steps
    if not 1 <= step <= last:
        raise UsageError(f"step {step} of {run.name}: expected 1 to {last:,}", hint="core runs lists runs and steps")


def kept_steps(run: RunRecord) -> str:
    """The steps after the checkpoints, as text."""
    return ", ".join(f"{number + 1:,}" for number in sorted(run.checkpoints)) or "there is no checkpoint"


def checkpoint_before(run: RunRecord, step: int) -> Checkpoint | None:
    """The nearest valid checkpoint before a step; None without one. One that a run removes meanwhile is passed over."""
    for number in run.checkpoints:
        if number < step:
            with contextlib.suppress(CheckpointError):
                return checkpoint.load(run.checkpoint_folder(number))
    return None


def estimate(run: RunRecord, steps: int) -> float:
    """Seconds for a number of steps and the traced one: by the run's own times, or the pace of another device."""
    table = run.config.train
    times = [float(line["ms"]) / 1e3 for line in run.metrics[-RECENT:] if isinstance(line.get("ms"), int | float)]
    one = statistics.median(times) if times else 0.0
    pace = None if run.own_device and times else run.kind.measured_pace(run.engine.device)
    if pace is not None:
        extra = pace.per_launch * len(run.engine.plan(TRAIN).steps) * run.micro
        one = estimate_seconds(run.engine.graph.parameter_count, table.tokens_per_step, pace.flops, extra)
    return one * (steps + TRACED)


def walked(run: RunRecord, step: int, start: Checkpoint | None) -> ReplayedStep:
    """The run from a checkpoint, or its start, to the middle of a step."""
    config, engine, registry, data = run.config, run.engine, run.registry, run.data
    display = Display(quiet=True)
    lr = learning_rate(config, registry)
    weights = find_weights(config, registry, engine) if start is None else None
    detector = Detector(**msgspec.structs.asdict(config.detect))
    if start is not None:
        check_same_data(start, data, False, display)
        detector.load(start.state)
        fill_from(start, config, engine, display)
    else:
        fill(config, engine, weights)
        engine.set_step(0)
    batches = batches_of(data.train, engine, run.micro, start)
    steps: list[Repeated] = []
    for before in range(start.step if start else 0, step - 1):
        record = engine.step(batches(before), lr(before), detector.limits_of_updates())
        if record.halted:
            raise UsageError(
                f"step {before + 1} of {run.name} is not finite {run.kind.where}: later steps cannot be run again",
                hint=f"--step {before + 1} looks into it",
            )
        detector.see(record.loss, record.norm)
        steps.append(compared(run, before + 1, record))
    now = batches(step - 1), lr(step - 1), detector.limits_of_updates()
    return ReplayedStep(run, start.step if start else 0, steps, *now)


def compared(run: RunRecord, step: int, record: Record) -> Repeated:
    """A step's numbers beside those of the run's metrics."""
    line = run.metrics_by_step.get(step, {})
    loss, norm = (float(line[name]) if name in line else None for name in ("loss", "norm"))
    return Repeated(step, float(record.loss), float(record.norm), loss, norm)
