"""Runs a variant's launchers once in the simulator and hands each launch to a caller: `core trace`, the kernel lens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from core.device.launch import LaunchRecord
from core.devices import SIM
from core.errors import BuildError, UsageError
from core.op import Op, Variant
from core.registry import Registry
from core.sim.faults import KernelError
from core.sim.launching.launch_report import Report
from core.sim.launching.watchers import Taped
from core.testing.case import Case, make_case
from core.testing.devices import DeviceRunner, Placed, name_tensors
from core.testing.runner import Call, CpuRunner
from core.testing.shapes import example_of, largest_first
from core.testing.trial import Trial
from core.testing.trials import modes_of, reference_of

DIRECTIONS = {"forward": ("forward",), "backward": ("backward", "forward_backward")}
See = Callable[[LaunchRecord, Report], None]


def kernels_of(name: str, registry: Registry) -> tuple[Op, Variant]:
    """The op and the variant that `op.variant` names; UsageError for one without kernels."""
    op, dot, variant = name.partition(".")
    if not dot:
        kernels = [v.name for v in registry.variants.get(registry.op(op).name, {}).values() if registry.has_kernels(v)]
        listed = " ".join(f"{op}.{v}" for v in kernels) or "none"
        raise UsageError(f'"{name}" names no variant', hint=f"those with kernels: {listed}")
    chosen = registry.variant(op, variant)
    if not registry.has_kernels(chosen):
        raise UsageError(f"{name} is for {chosen.device} and has no kernels", hint=f"core ops {op} lists the variants")
    return registry.op(op), chosen


def case_for(op: Op, variant: Variant, registry: Registry, words: Sequence[str], dtype: str) -> Case:
    """The case of `--shape`; without one, of the op's largest example that the variant takes. Raises as example_of."""
    first = make_case(op, example_of(op, words))
    if words or dtype not in variant.dtypes:
        return first
    home, truth = CpuRunner(registry), reference_of(op, registry)
    cases = (first, *(make_case(op, example) for example in largest_first(op)[1:]))
    return next((c for c in cases if Trial(c, variant, truth, dtype, "forward", home, home).why_not() is None), first)


class TraceRunner(DeviceRunner):
    """Runs launchers in the simulator; `see` gets each launch with its report.

    count, tape, strict: as of SimDevice; tape may be a function of the launch. failed: the launch that raised a
    KernelError.
    """

    guard = 0
    timed = False

    def __init__(
        self, registry: Registry, see: See, *, count: bool = False, strict: bool = False,
        tape: Taped | Callable[[LaunchRecord], Taped] = False,
    ) -> None:  # fmt: skip
        super().__init__(registry, SIM)
        self.see, self.count, self.strict, self.tape = see, count, strict, tape
        self.failed: LaunchRecord | None = None

    @cached_property
    def target(self) -> Any:
        device = self.kind.open()
        device.count, device.strict = self.count, self.strict
        device.on_report = self.see
        return device

    def launch(self, commands: Sequence[LaunchRecord]) -> None:
        self.target.prepare(commands)
        for record in commands:
            self.target.tape = self.tape(record) if callable(self.tape) else self.tape
            try:
                self.target.run([record])
            except KernelError:
                self.failed = record
                raise

    def _place(self, call: Call) -> dict[str, Placed]:
        placed = super()._place(call)
        name_tensors(self.target.space, placed)
        return placed

    def _scratch(self, call: Call) -> dict[str, Placed]:
        scratch = super()._scratch(call)
        name_tensors(self.target.space, scratch)
        return scratch


def run_launchers(
    op: Op, variant: Variant, case: Case, registry: Registry, dtype: str, direction: str,
    runner: Callable[[See], TraceRunner], see: See,
) -> None:  # fmt: skip
    """Run a variant's launchers once on a case, and show each launch of a direction (forward, backward or both).

    A launcher that several ways of training share is shown once. runner: makes a runner of a callable.
    Raises UsageError for a dtype that the variant does not have, and where nothing is launched; BuildError where it
    cannot run; KernelError.
    """
    if dtype not in variant.dtypes:
        raise UsageError(f"{op.name}.{variant.name} has no {dtype}", hint=f"it has {', '.join(variant.dtypes)}")
    truth, shown = reference_of(op, registry), set[str]()
    methods = {m for way, names in DIRECTIONS.items() if direction in (way, "both") for m in names}
    for mode in modes_of(op, variant) if direction != "forward" else ["forward"]:
        wanted, came = methods - shown, set[str]()

        def show(record: LaunchRecord, report: Report, wanted: set[str] = wanted, came: set[str] = came) -> None:
            if record.method in wanted:
                came.add(record.method)
                see(record, report)

        trial = Trial(case, variant, truth, dtype, mode, runner(show), CpuRunner(registry))
        if why := trial.why_not():
            raise BuildError(f"{op.name}.{variant.name} cannot run on {case.label}: {why}")
        trial.train()
        shown |= came
    if not shown:
        raise UsageError(f"{op.name}.{variant.name} launches no kernel {direction}", hint="leave --direction out")
