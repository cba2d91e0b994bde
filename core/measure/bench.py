"""Step time of a model, its breakdown by op, and the gap to the hardware roofline.

Batches are random tokens: no data is read, nothing is trained. The step is timed as training runs it; the ops are timed
in a micro-step of their own, launch by launch, so their sum and the step differ by the gaps between launches. A floor
is the longer of two times: the bytes of the op's tensors, each moved once, at the chip's memory rate, and the FLOPs of
its matrix products at the chip's peak. A chip that is not in core.kernels.chips.GPUS has no floor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.engine import Engine
from core.kernels.chips import gpu
from core.plan import TRAIN
from core.plan.cost import Flops, node_flops, per_token
from core.plan.step_tensors import nbytes_of
from core.plan.steps import Step

Array = np.ndarray[Any, Any]
WARM = 2  # steps before the first that counts: compilation, graphs, first touch of memory
BACKWARD = ("backward", "forward_backward")


@dataclass(frozen=True)
class Launched:
    """One entry of a micro-step, timed separately. seconds: the least of all rounds. flops: of its matrix products."""

    node: str
    op: str
    variant: str
    kind: str
    seconds: float
    nbytes: int
    flops: float

    def floor(self, peak: float | None, memory_rate: float | None) -> float | None:
        """Seconds that it takes at least at these rates, in FLOP/s and bytes/s; None where one is not known."""
        return max(self.nbytes / memory_rate, self.flops / peak) if peak and memory_rate else None


@dataclass(frozen=True)
class Row:
    """The share of an op's launches of one kind in the step. floor: seconds, None for a chip that is not known."""

    op: str
    variant: str
    kind: str
    launches: int
    seconds: float
    nbytes: int
    flops: float
    floor: float | None


@dataclass(frozen=True)
class Bench:
    """Seconds of whole steps, of the launches of one micro-step, and of the update; tokens of a step.

    flops: per token, both counts. peak: the chip's FLOP/s in this precision, None when it is not known.
    """

    steps: list[float]
    launched: list[Launched]
    update: float
    tokens: int
    micro: int
    flops: Flops
    peak: float | None
    memory_rate: float | None

    @property
    def seconds(self) -> float:
        """The median time of a step."""
        return statistics.median(self.steps)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def gaps(self) -> float:
        """Seconds of a step in which no launch runs, by the launches' own times; below 0 where they overlap."""
        return self.seconds - self.micro * sum(x.seconds for x in self.launched) - self.update

    def utilisation(self, flops_per_token: float) -> float | None:
        return None if not self.peak else self.tokens_per_s * flops_per_token / self.peak

    def rows(self) -> list[Row]:
        """Launches by op, variant and kind, the longest first."""
        groups: dict[tuple[str, str, str], list[Launched]] = {}
        for launch in self.launched:
            groups.setdefault((launch.op, launch.variant, launch.kind), []).append(launch)
        rows = [self._row(*key, launches) for key, launches in groups.items()]
        return sorted(rows, key=lambda row: -row.seconds)

    def _row(self, op: str, variant: str, kind: str, launches: list[Launched]) -> Row:
        nbytes, flops = sum(x.nbytes for x in launches), sum(x.flops for x in launches)
        floors = [floor for x in launches if (floor := x.floor(self.peak, self.memory_rate)) is not None]
        seconds = sum(x.seconds for x in launches)
        return Row(op, variant, kind, len(launches), seconds, nbytes, flops, sum(floors) if floors else None)


def bench(engine: Engine, micro: int, steps: int, lr: float = 1e-4) -> Bench:
    """Time `steps` training steps of `micro` micro-batches each, then one micro-step launch by launch."""
    batches = [random_batch(engine, seed) for seed in range(micro)]
    taken = []
    for index in range(WARM + steps):
        begun = time.perf_counter()
        engine.step(batches, lr)
        if index >= WARM:
            taken.append(time.perf_counter() - begun)
    launched, update = timed_launches(engine, batches[0], max(1, min(steps, 5)))
    return Bench(
        taken,
        launched,
        update,
        tokens := micro * next(iter(batches[0].values())).size,
        micro,
        per_token(engine.plan(TRAIN).graph, tokens // micro),
        *peaks_of(engine),
    )


def timed_launches(engine: Engine, batch: Mapping[str, Array], rounds: int) -> tuple[list[Launched], float]:
    """The entries of a micro-step, each timed separately, and the seconds of the update: the least of all rounds. The
    update changes the optimizer's state."""
    timings = [engine.timed(batch) for _ in range(rounds)]
    least = [min(steps[i][1] for steps, _ in timings) for i in range(len(timings[0][0]))]
    launched = [launched_step(step, seconds) for (step, _), seconds in zip(timings[0][0], least, strict=True)]
    return launched, min(update for _, update in timings)


def peaks_of(engine: Engine) -> tuple[float | None, float | None]:
    """The peaks of the engine's device: (FLOP/s in the engine's precision, bytes/s of memory); None for an unknown
    one."""
    peaks = gpu(engine.device.model)
    return (peaks.peak(engine.precision, engine.settings.tf32), peaks.memory) if peaks else (None, None)


def random_batch(engine: Engine, seed: int) -> Mapping[str, Array]:
    """Uniform integers in place of tokens and normal numbers for floats, in the shapes of the config's B and T."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, value.bound or 1, value.shape, np.int32)
        if value.dtype == "i32"
        else rng.standard_normal(value.shape, np.float32)
        for name, value in engine.graph.inputs.items()
    }


def launched_step(step: Step, seconds: float) -> Launched:
    """A step of a plan with its bytes and FLOPs, and the seconds that it took."""
    if step.node is None or step.variant is None:
        return Launched("", step.kind, "", "", seconds, nbytes_of(step), 0.0)
    backward = step.kind in BACKWARD
    flops = node_flops(step.node, forward=step.kind != "backward", backward=backward)
    return Launched(
        step.node.name, step.node.op.name, step.variant.name, step.kind, seconds, nbytes_of(step), flops.needed
    )


def chrome_trace(timings: Bench, name: str) -> dict[str, Any]:
    """One micro-step and the update as a trace that Perfetto and chrome://tracing open; times in microseconds.

    Launches are laid end to end: each was timed separately.
    """
    at, events = 0.0, []
    update = Launched("", "update", "", "", timings.update, 0, 0.0)
    for x in (*timings.launched, update):
        label = f"{x.node} {x.kind}" if x.node else x.op
        arguments = {"op": x.op, "variant": x.variant, "bytes": x.nbytes, "flops": x.flops}
        events.append(
            {"name": label, "cat": x.op, "ph": "X", "ts": at * 1e6, "dur": x.seconds * 1e6, "pid": 1, "tid": 1}
            | {"args": arguments}
        )
        at += x.seconds
    about = {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": name}}
    return {"traceEvents": [about, *events], "displayTimeUnit": "ms"}
