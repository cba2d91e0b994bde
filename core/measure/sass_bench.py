"""A config's micro-step and update as a model sees them: each kernel's bound on a GPU that need not be here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.device.planned import PlannedDevice, launches_among
from core.engine import Engine
from core.errors import UsageError, did_you_mean
from core.kernels.chips import GPUS, Gpu, gpu
from core.measure.bench import launched_step
from core.measure.sass_model import KernelRow, as_data, bound_of, rows_of
from core.plan import TRAIN


@dataclass(frozen=True)
class SassBench:
    """Rows of a micro-step and of the update; floor: seconds of the micro-step's roofline, None without a peak;
    left_out: commands that are not kernels, such as a library's calls."""

    gpu: str
    micro: list[KernelRow]
    update: list[KernelRow]
    floor: float | None
    left_out: int

    @property
    def seconds(self) -> float:
        """A lower bound of a micro-step's seconds."""
        return sum(row.seconds for row in self.micro)

    @property
    def update_seconds(self) -> float:
        return sum(row.seconds for row in self.update)

    @property
    def over_floor(self) -> float | None:
        return self.seconds / self.floor if self.floor else None

    def data(self) -> dict[str, Any]:
        """For --json."""
        return {
            "gpu": self.gpu, "model": True, "micro_step_ms": 1e3 * self.seconds,
            "update_ms": 1e3 * self.update_seconds, "floor_ms": None if self.floor is None else 1e3 * self.floor,
            "over_floor": self.over_floor, "left_out": self.left_out,
            "kernels": [as_data(row) for row in self.micro], "update": [as_data(row) for row in self.update],
        }  # fmt: skip


def known_gpu(name: str) -> Gpu:
    """The GPU of that name. Raises UsageError that lists the known ones."""
    if (held := gpu(name)) is None:
        raise UsageError(
            f'--gpu "{name}": its rates are unknown{did_you_mean(name, GPUS)}',
            hint=f"known: {', '.join(GPUS)}; a row in core/kernels/chips.py adds one",
        )
    return held


def planned_for(there: PlannedDevice, name: str) -> PlannedDevice:
    """A planned device of a GPU's architecture, with its name and multiprocessors."""
    there.model, there.sms = name, known_gpu(name).sms
    return there


def sass_bench(engine: Engine) -> SassBench:
    """The bounds of an engine on a planned device with the name of a GPU."""
    name = engine.device.model
    chip = known_gpu(name)
    plan = engine.plan(TRAIN)
    micro = engine.bound(TRAIN, (), engine.input_sizes).launches()
    update = engine.device.record_calls(engine.update_calls(engine.device), engine.chooser.pick)
    engine.device.prepare([*micro, *update])
    left_out = sum(len(commands) - len(launches_among(commands)) for commands in (micro, update))
    peak = chip.peak(engine.precision, engine.settings.tf32)
    floors = [launched_step(step, 0.0).floor(peak, chip.memory) for step in plan.steps]
    floor = sum(f for f in floors if f is not None) if peak else None
    return SassBench(name, _rows(micro, chip), _rows(update, chip), floor, left_out)


def _rows(commands: Sequence[Any], chip: Gpu) -> list[KernelRow]:
    return rows_of([bound_of(launch, chip) for launch in launches_among(commands)])
