"""The least time of a training step on the chip that it runs on, for `sol` in a step's line: a model, no measurement.

From the kernels' SASS where nvdisasm is installed (core.measure.sass_model), else from the roofline: each step of the
plan takes its FLOPs at the peak, or its bytes at the memory's rate.
"""

from __future__ import annotations

from core.device.planned import launches_among
from core.engine import Engine
from core.errors import CoreError
from core.kernels.chips import Gpu, gpu
from core.kernels.sass import has_nvdisasm
from core.measure.bench import launched_step
from core.measure.sass_model import bound_of
from core.plan import TRAIN
from core.plan.report import PlanReport


def least_seconds(engine: Engine, micro_steps: int) -> float | None:
    """The least seconds of a step of `micro_steps` micro-steps and its update; None on a chip whose rates are
    unknown."""
    chip = gpu(engine.device.model) if engine.device.model else None
    if chip is None:
        return None
    report = engine.report(engine.plan(TRAIN))
    try:
        micro, update = by_sass(report, chip) if has_nvdisasm() else (0.0, 0.0)
    except CoreError:  # of the compiler or of nvdisasm: the roofline needs neither
        micro = 0.0
    if not micro:
        peak = chip.peak(engine.precision, engine.settings.tf32)
        micro = sum(launched_step(step, 0.0).floor(peak, chip.memory) or 0.0 for step in report.plan.steps)
        update = sum(launch.nbytes for launch in launches_among(report.recorded[2])) / chip.memory
    return micro_steps * micro + update or None


def by_sass(report: PlanReport, chip: Gpu) -> tuple[float, float]:
    """Seconds of a micro-step's and of the update's launches; zeros on a device without kernels."""
    _, steps, update = report.recorded
    micro = [command for recorded in steps for command in recorded.commands]
    first, second = (sum(bound_of(launch, chip).seconds for launch in launches_among(c)) for c in (micro, update))
    return first, second
