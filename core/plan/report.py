"""Figures of a plan for its readers: memory, launches, choices, tiles, and the bytes that recompute would save.

Nothing is allocated: launches are recorded on a device without memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from core.dtypes import itemsize, resolve
from core.graph import Graph
from core.plan.choose import Chooser, specs
from core.plan.layout import ParameterLayout
from core.plan.make import make_plan
from core.plan.record import RecordedStep, on_paper, paper
from core.plan.steps import TRAIN, Choice, Plan

if TYPE_CHECKING:
    from core.device.protocol import Device


@dataclass(frozen=True)
class PlanReport:
    """Figures of `plan` on `device`, with parameters laid out as `layout`.

    states: the optimizer's flat tensors, master weights among them. health: columns of the ring of statistics.
    update(device): the optimizer's step, recorded on that device; None for a model without an optimizer.
    graph_for(dims): the model with other dims.
    """

    plan: Plan
    layout: ParameterLayout
    device: Device
    chooser: Chooser
    graph_for: Callable[[Mapping[str, int]], Graph]
    states: int = 0
    health: int = 0
    update: Callable[[Any], Sequence[Any]] | None = None

    @property
    def _updates(self) -> bool:
        return self.plan.request.kind == TRAIN and self.update is not None

    # --- memory ------------------------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """Bytes of parameters, gradients, optimizer, recorded statistics, and the plan's arena with its parts."""
        plan, training = self.plan, self.plan.request.kind == TRAIN
        acc = itemsize(resolve("acc", plan.precision)) * self.layout.trainable
        return {
            "parameters": self.layout.size * itemsize(resolve(None, plan.precision)),
            "gradients": acc if training else 0,
            "optimizer": acc * self.states if training else 0,
            "health": self._health_bytes() if self._updates and self.health else 0,
            "activations": plan.arena_bytes,
            "saved": plan.saved_bytes,
            "workspace": plan.workspace_bytes,
        }

    def _health_bytes(self) -> int:
        from core.plan.health_rows import health_bytes  # of runs that record statistics

        return health_bytes(self.plan, self.layout, self.device, self.health)

    def scratch(self) -> dict[str, int]:
        """{"scratch": bytes} that nested launches of the plan and its update take besides the arena, if any do."""
        nbytes = self._recorded[0].scratch_bytes
        return {"scratch": nbytes} if nbytes else {}

    def check_fit(self) -> None:
        """Before anything large is allocated: DeviceError when the device's free memory cannot hold the plan."""
        there = self.device.memory()
        if there is None:
            return  # the operating system manages the memory
        from core.plan.fit import check_fit, needed

        scratch = self.scratch()

        def measure(dims: Mapping[str, int], ops: Sequence[str]) -> int:
            return needed(self._of(self._recomputing(ops, dims)).memory() | scratch)

        memory = self.memory() | scratch
        free = there[0] + memory["parameters"]  # the weights are allocated already
        check_fit(self.plan, memory, free, device=self.device.describe(), measure=measure)

    def recompute_options(self) -> list[dict[str, Any]]:
        """Savings and costs of recomputing each op: `core.plan.fit.recompute_options`."""
        from core.plan.fit import needed, recomputable, recompute_options

        others = {op: self._recomputing((op,)) for op in recomputable(self.plan)}
        return recompute_options(
            self.plan, others, lambda plan: needed(self._of(plan).memory()), lambda plan: self._of(plan).work()
        )

    def _of(self, plan: Plan) -> PlanReport:
        """The same of another plan."""
        return self if plan is self.plan else replace(self, plan=plan)

    def _recomputing(self, ops: Sequence[str], dims: Mapping[str, int] | None = None) -> Plan:
        """The plan with these ops recomputed too, and maybe other dims."""
        request = replace(self.plan.request, recompute=tuple(dict.fromkeys((*self.plan.request.recompute, *ops))))
        return make_plan(self.graph_for(dims) if dims else self.plan.graph, request, self.chooser, self.layout)

    # --- launches ----------------------------------------------------------------------------------------------

    @cached_property
    def _recorded(self) -> tuple[Any, list[RecordedStep], list[Any]]:
        """A device without memory, and the commands of the plan and of its update on it; the cpu, which has no
        kernels, records its update alone."""
        device = paper(self.device)
        steps = on_paper(self.plan, device, self.chooser.pick) if device is not self.device else []
        return device, steps, list(self.update(device)) if self._updates and self.update is not None else []

    def work(self) -> tuple[int, int]:
        """Launches of the first micro-step, a library's calls among them, and the bytes that they read and write: each
        tensor counts once per launch, and once more where it is added to. Without kernels, 0 and the steps' bytes."""
        device, steps, _ = self._recorded
        if device is self.device:
            return 0, self.plan.traffic
        from core.device.launch import CallRecord, LaunchRecord  # of devices with kernels

        count = traffic = 0
        for recorded in steps:
            t = recorded.t
            records = [c for c in recorded.commands if isinstance(c, LaunchRecord | CallRecord)]
            count += len(records)
            traffic += sum(record.nbytes for record in records)
            added = [name[4:] for name, flag in vars(t).items() if name.startswith("add_d") and flag is True]
            traffic += sum(getattr(t, name).nbytes for name in added if records and getattr(t, name) is not None)
        return count, traffic

    def compiled(self) -> dict[Any, Any]:
        """Kernel -> registers and memory as the compiler reports them, for all that the plan and its update launch;
        nothing on a device without a compiler."""
        device, steps, update = self._recorded
        if device is self.device:
            return {}
        launches = [c for recorded in steps for c in recorded.commands] + update
        kernels: Any = self.device  # a KernelDevice: those alone record on another one
        return dict(kernels.prepare([kernels.as_command(launch) for launch in launches]) or {})

    # --- choices -----------------------------------------------------------------------------------------------

    def choices(self) -> dict[str, Choice]:
        """The choice of each node of the plan, then those of nested launches and of the update."""
        _ = self._recorded  # recording makes the choices of nested launches
        return {**self.plan.choices, **self.chooser.nested_choices}

    def tiles(self) -> dict[str, dict[str, Any]]:
        """The tiles of each node whose variant has a choice of them: other ones may give other bits."""
        plan = self.plan
        configs = {n.name: plan.choices[n.name].config_for(specs(n, plan.graph, plan.precision)) for n in plan.nodes}
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
