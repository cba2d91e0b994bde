"""Figures of a plan that every run prints or records: memory, choices, tiles.

Nothing is allocated: launches are recorded on a device without memory. More figures: core.plan.figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from core.dtypes import itemsize, resolve
from core.graph import Graph
from core.plan.choose import Chooser, specs
from core.plan.layout import ParameterLayout
from core.plan.record import RecordedStep
from core.plan.steps import TRAIN, Choice, Plan

if TYPE_CHECKING:
    from core.device.protocol import Device
    from core.ranks.slices import Slices


@dataclass(frozen=True)
class PlanReport:
    """Figures of `plan` on `device`, with parameters laid out as `layout`.

    states: the optimizer's flat tensors, with the master weights where there are any (`master`).
    slices: those of the trainable elements, of which a rank has one. health: columns of the ring of statistics.
    update(device): the optimizer's step, recorded on that device; None for a model without an optimizer.
    graph_for(dims): the model with other dims.
    """

    plan: Plan
    layout: ParameterLayout
    device: Device
    chooser: Chooser
    graph_for: Callable[[Mapping[str, int]], Graph]
    states: int = 0
    master: bool = False
    slices: Slices | None = None
    health: int = 0
    update: Callable[[Any], Sequence[Any]] | None = None

    @property
    def _updates(self) -> bool:
        return self.plan.request.kind == TRAIN and self.update is not None

    # --- memory ------------------------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """Bytes of parameters, gradients, optimizer, recorded statistics, the state of a decode session, and the plan's
        arena with its parts."""
        plan, training = self.plan, self.plan.request.kind == TRAIN
        acc = itemsize(resolve("acc", plan.precision)) * self.layout.trainable
        return {
            "parameters": self.layout.size * itemsize(resolve(None, plan.precision)),
            "gradients": acc if training else 0,
            "optimizer": self.states * self.flat_bytes if training else 0,
            "health": self._health_bytes() if self._updates and self.health else 0,
            "state": plan.state_bytes,
            "activations": plan.arena_bytes,
            "saved": plan.saved_bytes,
            "workspace": plan.workspace_bytes,
        }

    @property
    def flat_bytes(self) -> int:
        """Bytes of one of the optimizer's tensors, or of the master weights: all trained elements, or the largest
        slice."""
        elements = self.slices.largest if self.slices else self.layout.trainable
        return itemsize(resolve("acc", self.plan.precision)) * elements

    def _health_bytes(self) -> int:
        from core.plan.health_rows import health_bytes  # of runs that record statistics

        return health_bytes(self.plan, self.layout, self.device, self.health)

    # --- launches ----------------------------------------------------------------------------------------------

    @cached_property
    def recorded(self) -> tuple[Any, list[RecordedStep], list[Any]]:
        """A device without memory, and the commands of the plan and of its update on it; the cpu, which has no
        kernels, records its update alone."""
        there, steps = self.device.unbacked(), list[RecordedStep]()
        if there is not self.device:
            from core.plan.paper import on_paper  # of devices with kernels

            steps = on_paper(self.plan, there, self.chooser.pick)
        return there, steps, list(self.update(there)) if self._updates and self.update is not None else []

    # --- choices -----------------------------------------------------------------------------------------------

    def choices(self) -> dict[str, Choice]:
        """The choice of each node of the plan, then those of nested launches and of the update."""
        _ = self.recorded  # recording makes the choices of nested launches
        return {**self.plan.choices, **self.chooser.nested_choices}

    def tiles(self) -> dict[str, dict[str, Any]]:
        """The tiles of each node whose variant has a choice of them: other ones may give other bits."""
        plan = self.plan
        configs = {}
        for node in plan.nodes:
            t = specs(node, plan.graph, plan.precision, plan.request.capacity)
            configs[node.name] = plan.choices[node.name].config_for(t)
        configs |= {name: dict(choice.config or {}) for name, choice in self.chooser.nested_choices.items()}
        return {name: tiles for name, tiles in configs.items() if tiles}

    def table(self) -> list[dict[str, Any]]:
        """One row per (op, variant, reason): op, variant, how many nodes, source, why, the first node."""
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for name, choice in self.choices().items():
            op, variant = choice.variant.op, choice.variant.name
            first = {"op": op, "variant": variant, "nodes": 0, "source": choice.variant.origin, "why": choice.why}
            row = rows.setdefault((op, variant, choice.why), {**first, "node": name})
            row["nodes"] += 1
        return list(rows.values())
