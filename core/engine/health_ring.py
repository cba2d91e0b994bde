"""Records statistics of the tensors that a training step writes, into a ring buffer on the device.

The step's launches stay the same: others run between them, read the written tensors, and write only the ring.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.device.measured import VALUES, MeasuredTensor
from core.dtypes import resolve
from core.engine.bound import BoundPlan
from core.plan.health_rows import (
    GRADIENT,
    UNSCALED,
    UPDATE,
    HealthRow,
    copy_bytes,
    health_rows,
    launch_shapes,
    parameter_groups,
    workspace_sizes,
    written,
)
from core.plan.record import RecordedStep

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class HealthColumn:
    """The statistics of one step. step: counted from 1. values: (rows, 8) f64, `core.device.measured.VALUES` for each
    of `rows`."""

    step: int
    rows: Sequence[HealthRow]
    values: Array


class Health:
    """The launches and the ring of one bound training plan. `columns`: how many steps the ring holds; one more takes
    the place of the oldest."""

    def __init__(self, bound: BoundPlan, columns: int) -> None:
        plan, layout, device = bound.plan, bound.store.layout, bound.device
        self.bound, self.device, self.store = bound, device, bound.store
        self.rows = health_rows(plan, layout)
        launches = launch_shapes(plan, layout)
        sizes = workspace_sizes(launches, device)
        self._workspace = self._zeros((sum(sizes),), "u8", sum(sizes))
        self._column = self._zeros((len(self.rows), len(VALUES)), "f64", 8 * len(VALUES) * len(self.rows))
        self._ring = self._zeros((columns, *self._column.shape), "f64", columns * self._column.nbytes)
        places, row, byte = [], 0, 0
        for shapes, size in zip(launches, sizes, strict=True):
            places.append((self._column[row : row + len(shapes)], self._workspace[byte : byte + size]))
            row, byte = row + len(shapes), byte + size
        self._steps_written = {
            id(step): (tensors, place) for (step, tensors), place in zip(written(plan), places, strict=False)
        }
        groups = parameter_groups(layout)
        self._groups = list(zip(groups, places[-len(groups) :], strict=True))
        self._steps: deque[tuple[int, float]] = deque(maxlen=columns)
        self._kept = 0
        self._commands: dict[str, Sequence[Any]] = {}
        self._memory: Any = None  # the arena that the commands were recorded with
        bound.arena.fit(copy_bytes(plan, layout))

    def _zeros(self, shape: tuple[int, ...], dtype: str, nbytes: int) -> Any:
        return self.device.tensor(self.device.allocate(nbytes), 0, shape, dtype)

    # --- a step ----------------------------------------------------------------------------------------------

    def beside(self, recorded: RecordedStep) -> list[Any]:
        """Commands to run after a step of the plan: the statistics of its results."""
        if id(recorded.step) not in self._steps_written:
            return []
        tensors, place = self._steps_written[id(recorded.step)]
        measured = [MeasuredTensor(getattr(recorded.t, name), buffer.shape) for name, buffer in tensors]
        return self.device.statistics(measured, *place)

    def before_update(self) -> None:
        """Take the gradients' statistics and keep the parameters as they are."""
        self._run("before", lambda: [*self._of_group(0), *self.device.copy(self._before(), self._trainable())])

    def after_update(self, step: int, scale: float) -> None:
        """Take those of parameters and updates, and keep the column as that of `step`. scale: of its gradients."""
        self._run("after", lambda: [*self._of_group(1), *self._of_group(2)])
        at = self._kept % len(self._ring)
        self._run(f"keep {at}", lambda: self._keep(at))
        self._kept += 1
        self._steps.append((step, scale))

    def launches(self) -> list[Any]:
        """Commands with all that recording launches, for a compiler."""
        return [*self._of_group(0), *self.device.copy(self._before(), self._trainable()), *self._keep(0)]

    def _keep(self, at: int) -> list[Any]:
        return self.device.copy(self._ring[at : at + 1].reshape(self._column.shape), self._column)

    def _run(self, name: str, record: Callable[[], Sequence[Any]]) -> None:
        if self._memory is not self.bound.arena.memory:
            self._memory = self.bound.arena.memory
            self._commands.clear()
        if name not in self._commands:
            commands = record()
            self._commands[name] = self.device.captured(commands) if self.bound.capture else commands
        self.device.run(self._commands[name])

    def _trainable(self) -> Any:
        """The flat parameters that train."""
        return self.store.trained

    def _before(self) -> Any:
        """The same before the update: in the arena, which no plan uses between its micro-steps."""
        store, acc = self.store, resolve("acc", self.bound.plan.precision)
        kind = resolve(None, self.bound.plan.precision) if store.slices else acc
        return self.device.tensor(self.bound.arena.memory, 0, (store.layout.trainable,), kind)

    def _of_group(self, index: int) -> Sequence[Any]:
        """The launch over a group of parameters."""
        (kind, names), place = self._groups[index]
        store, measured = self.store, []
        for name in names:
            shape = store.layout.places[name].shape
            flat = store.grads if kind == GRADIENT else store.full(name)
            before = store.place(self._before(), name) if kind == UPDATE else None
            measured.append(MeasuredTensor(store.place(flat, name), shape, before))
        return self.device.statistics(measured, *place)

    # --- the ring --------------------------------------------------------------------------------------------

    def take(self) -> list[HealthColumn]:
        """The columns of the ring, oldest first, which is empty afterwards."""
        if not self._steps:
            return []
        ring, first = self.device.download(self._ring), self._kept - len(self._steps)
        columns = []
        for i, (step, scale) in enumerate(self._steps):
            values = ring[(first + i) % len(ring)]
            columns.append(HealthColumn(step, self.rows, values if scale == 1 else unscaled(self.rows, values, scale)))
        self._steps.clear()
        self._kept = 0
        return columns


def unscaled(rows: Sequence[HealthRow], values: Array, scale: float) -> Array:
    """`values` with the gradients' numbers divided by the loss scale; counts are of the numbers in memory, and stay."""
    powers = {"sum": 1, "squares": 2, "least": 1, "largest": 1}
    divisor = np.array([scale ** powers.get(name, 0) for name in VALUES])
    return np.where([[row.kind in UNSCALED] for row in rows], values, values / divisor)
