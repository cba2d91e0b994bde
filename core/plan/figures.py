"""Figures of a plan that take a recording of it without memory, or other plans beside it.

Whether it fits, the savings of recompute, its launches and traffic, the compiler's report on its kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.plan import fit
from core.plan.make import make_plan
from core.plan.report import PlanReport
from core.plan.step_tensors import nbytes_of
from core.plan.steps import Plan


def scratch(report: PlanReport) -> dict[str, int]:
    """{"scratch": bytes} of nested launches of the plan and its update, in addition to the arena, if there are any."""
    nbytes = report.recorded[0].scratch_bytes
    return {"scratch": nbytes} if nbytes else {}


def check_fit(report: PlanReport) -> None:
    """Before anything large is allocated: DeviceError when the device's free memory cannot hold the plan."""
    there = report.device.memory()
    if there is None:
        return  # the operating system manages the memory
    beside = scratch(report)

    def measure(dims: Mapping[str, int], ops: Sequence[str]) -> int:
        return fit.needed(_of(report, _recomputing(report, ops, dims)).memory() | beside)

    memory = report.memory() | beside
    free = there[0] + memory["parameters"] + report.master * report.flat_bytes  # these are allocated already
    fit.check_fit(report.plan, memory, free, device=report.device.describe(), measure=measure)


def recompute_options(report: PlanReport) -> list[dict[str, Any]]:
    """Savings and costs of recomputing each op: `core.plan.fit.recompute_options`."""
    others = {op: _recomputing(report, (op,)) for op in fit.recomputable(report.plan)}
    return fit.recompute_options(
        report.plan, others, lambda p: fit.needed(_of(report, p).memory()), lambda p: work(_of(report, p))
    )


def _of(report: PlanReport, plan: Plan) -> PlanReport:
    """The same of another plan."""
    return report if plan is report.plan else replace(report, plan=plan)


def _recomputing(report: PlanReport, ops: Sequence[str], dims: Mapping[str, int] | None = None) -> Plan:
    """The plan with these ops recomputed too, and maybe other dims."""
    request = report.plan.request
    request = replace(request, recompute=tuple(dict.fromkeys((*request.recompute, *ops))))
    graph = report.graph_for(dims) if dims else report.plan.graph
    return make_plan(graph, request, report.chooser, report.layout)


def work(report: PlanReport) -> tuple[int, int]:
    """Launches of the first micro-step, a library's calls among them, and the bytes that they read and write: each
    tensor counts once per launch, and once more where it is added to. Without kernels, 0 and the steps' bytes."""
    device, steps, _ = report.recorded
    if device is report.device:
        return 0, sum(map(nbytes_of, report.plan.steps))
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


def compiled(report: PlanReport) -> dict[Any, Any]:
    """Kernel -> registers and memory as the compiler reports them, for all that the plan and its update launch;
    nothing on a device without a compiler."""
    device, steps, update = report.recorded
    if device is report.device:
        return {}
    launches = [c for recorded in steps for c in recorded.commands] + update
    kernels: Any = report.device  # a KernelDevice: those alone record on another one
    return dict(kernels.prepare([kernels.as_command(launch) for launch in launches]) or {})
