"""The op check: every variant of an op, on every example and dtype, through every sub-check.

`check_op("rmsnorm")` is the call of a plugin's test and of `core check rmsnorm`. It raises CheckFailed when a
variant is wrong, and returns a `CheckReport` when all are right.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from core import blas
from core.dtypes import itemsize
from core.errors import BuildError, UsageError
from core.kernels.nvrtc import Resources, architectures_of
from core.loader import load_registry
from core.op import Op, Reference, Variant
from core.registry import Registry, shorten
from core.testing.case import Case, cases_of, make_case
from core.testing.check_report import CheckReport, VariantReport
from core.testing.checks import SUBCHECKS, applies, check_blocks, check_schema
from core.testing.compiles import check_compile, compilations, launches_of, widest
from core.testing.devices import DeviceRunner, SimRunner
from core.testing.log import Failure, Log, StopChecks
from core.testing.made_of import check_parts_matter
from core.testing.real_sizes import check_real_sizes
from core.testing.runner import CpuRunner, Runner
from core.testing.trial import Trial
from core.testing.trials import decoded_trials, quick_dtypes, reference_of, smallest, trials_of
from core.testing.truth import check_truth
from core.verdicts import Verdicts, sizes_of


def check_op(
    target: str, *, registry: Registry | None = None, plugins: Sequence[str] = (), device: str = "", seed: int = 0
) -> CheckReport:
    """Check `"op"` (all its variants) or `"op.variant"`, on `device`, by default on each one's `Registry.home`.

    registry: where to look; without one, all built-in, shipped and installed plugins are loaded, and `plugins` by path.
    seed: of the drawn contents. Raises CheckFailed naming sub-check, tensor, index, error, example and dtype;
    BuildError for an unknown name.
    """
    registry = registry if registry is not None else load_registry(plugins)
    pairs = find(target, registry, device)
    report = CheckReport([check_variant(op, variant, registry, device, seed=seed) for op, variant in pairs])
    report.raise_failures()
    return report


def find(target: str, registry: Registry, device: str = "") -> list[tuple[Op, Variant]]:
    """The variants that `"op"` or `"op.variant"` names, the reference first; with `device`, those that run there."""
    kind = runs_on(device, registry)
    name, dot, wanted = target.partition(".")
    op = registry.op(name)
    if dot:
        variant = registry.variant(name, wanted)
        if kind not in ("", variant.device):
            able = " or ".join(
                f"--device {place.name}" for place in registry.devices.values() if place.runs == variant.device
            )
            raise UsageError(f"{target} is for {variant.device}, and this check runs on {device}", hint=able)
        return [(op, variant)]
    here = [v for v in registry.variants.get(name, {}).values() if kind in ("", v.device) and not v.substitute]
    if not here:
        raise BuildError(f'op "{name}" has no variant for {device or "any device"}, so there is nothing to check')
    return [(op, v) for v in sorted(here, key=lambda v: (not isinstance(v, Reference), v.device, v.name))]


def runs_on(device: str, registry: Registry) -> str:
    """The `Variant.device` that is checked on `device`; "" for "", which is all."""
    return registry.device(device).runs if device else ""


def runner_of(device: str, registry: Registry) -> Runner:
    """The runner of variants on a device in the op check. Raises UsageError for a name that no device has."""
    kind = registry.device(device)
    if not kind.compiles:
        return CpuRunner(registry, kind)
    return SimRunner(registry, kind) if kind.simulated else DeviceRunner(registry, kind)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Python looks for cycles seldom: with its own thresholds, a check spends a third of its time on that."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@seldom_collected()
@blas.one_thread()  # its threads wait busily for each other, and a comparison of tensors then takes milliseconds
def check_variant(
    op: Op, variant: Variant, registry: Registry, device: str = "", *, seed: int = 0, stop: bool = False,
    reference: Reference | None = None, examples: Sequence[int] | None = None, archs: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None, checks: Sequence[str] = tuple(SUBCHECKS), quick: bool = False,
    whole: bool = True, against: tuple[Op, Variant] | None = None, recorded: bool = True,
    on_activity: Callable[[str], None] = lambda text: None,
) -> VariantReport:  # fmt: skip
    """All sub-checks of one variant on `device`, by default its `Registry.home`. `stop`: give up at the first failure.

    examples: numbers of examples, the op's first, then the variant's own; archs: architectures to compile kernels for;
    dtypes: some of the variant's; checks: sub-checks of a trial. By default all; tests that run often choose.
    quick: one dtype, the smallest examples, nothing compiled for other chips. whole: False skips the sub-checks that
    follow a failure. `against`: an op of the same schema and its variant, the truth in place of the reference.
    recorded: compilations for other chips that a verdict records as passed are not repeated.
    on_activity: a display, called with the present activity.
    """
    log = Log(stop=stop, clues=not stop)  # a mutant's check names the sub-check that failed, and no more
    device = device or registry.home(variant).name
    report = VariantReport(op.name, variant.name, device, variant.dtypes)
    if op.collective and not isinstance(variant, Reference):
        from core.testing.on_ranks import check_on_ranks  # of ops that need several ranks

        check_on_ranks(op, variant, registry, report, seed)
        return report
    runner = runner_of(device, registry)
    dtypes, archs = (quick_dtypes(variant), ()) if quick else (dtypes, archs)
    with errors_in(log, op):
        cases, truth = cases_of(op, variant, seed, examples), reference or reference_of(op, registry)
        cases, truth = held_to(cases, *against) if against is not None else (cases, truth)
        trials, report.skipped = trials_of(
            op, variant, registry, runner=runner, cases=cases, reference=truth, dtypes=dtypes
        )
        if variant.library and not trials:
            report.left_out = "; ".join(sorted(set(report.skipped.values())))
            return report
        trials = smallest(trials) if quick else trials
        fed = decoded_trials(op, variant, registry, runner=runner, cases=cases, reference=truth, but=trials)
        every = [t for t in (*trials, *fed) if not dtypes or t.dtype in dtypes]
        report.cover({d: [sizes_of(op, t.dims) for t in every if t.dtype == d] for d in variant.dtypes})
        check_schema(log, variant, every, list(report.skipped.values()))
        check_truth(log, op, variant, truth, cases, registry)
        report.waiting = run_checks(log, every, checks, whole, on_activity)
        if runner.native and not log.failures and not quick and examples is None and checks:
            on_activity("at practical sizes")
            report.cover(check_real_sizes(log, op, variant, registry, runner, truth, dtypes or variant.dtypes))
        passed = Verdicts(registry).compiled(variant) if recorded else ()
        check_all_trials(log, variant, every, runner, report, archs, passed, quick, on_activity)
        report.notes = [*notes_on(op, variant), *report.notes]
    report.take(log)
    return report


@contextmanager
def errors_in(log: Log, op: Op) -> Iterator[None]:
    """A BuildError becomes a failure of the schema; the first failure of a log that stops ends the block."""
    try:
        yield
    except BuildError as error:
        place = f"{shorten(op.where)}: {error.message}"
        log.failures.append(Failure("schema", place, float("nan"), "", "", hint=error.hint))
    except StopChecks:
        pass


def check_all_trials(
    log: Log, variant: Variant, trials: Sequence[Trial], runner: Runner, report: VariantReport,
    archs: Sequence[str] | None, passed: Collection[str], quick: bool, on_activity: Callable[[str], None],
) -> None:  # fmt: skip
    """The sub-checks that are made once, of all trials of a variant together."""
    log.case, log.dtype = "all", "all"
    if not report.waiting and not quick:
        check_blocks(log)
        check_parts_matter(log)
    if not variant.sources:
        return
    if not log.failures and archs != ():
        on_activity("compiling for every architecture")
        report.compiled = check_compile(log, variant, trials, archs, passed)
        if report.compiled in passed:
            by = report.compiled.partition(":")[0]
            report.notes.append(f"passed compilations are recorded, with {by}; --recompile repeats them")
    if not log.failures and not quick and runner.slow:
        report.gaps = runner.gaps(variant)
        if not report.gaps:
            log.passed("coverage")


def run_checks(
    log: Log, trials: Sequence[Trial], checks: Sequence[str], whole: bool, on_activity: Callable[[str], None]
) -> list[str]:
    """Make the sub-checks in their order; the names of those that wait because an earlier one failed."""
    names = [name for name in SUBCHECKS if name in checks]
    for number, name in enumerate(names):
        if log.failures and not whole:
            return [*names[number:], *(["compile"] if trials and trials[0].variant.sources else ["blocks"])]
        if able := [t for t in trials if applies(name, t)]:
            run_check(log, name, able, on_activity)
    return []


def run_check(log: Log, name: str, trials: Sequence[Trial], on_activity: Callable[[str], None]) -> None:
    """Make one sub-check of all trials; then look for races in those of its launches that show the most."""
    runner, before = trials[0].runner, len(log.failures)
    with runner.later() as late:
        for trial in trials:
            log.case, log.dtype, waiting = trial.case.label, trial.dtype, len(late)
            on_activity(f"{name}, {trial.dtype}, {trial.case.label}")
            with log.caught(name):
                SUBCHECKS[name](log, trial)
            for one in late[waiting:]:
                one.case, one.dtype = trial.case.label, trial.dtype
    values = log.failures[before:]
    for one, strictly in runner.strictly(late):
        log.case, log.dtype = one.case, one.dtype
        on_activity(f"{name}, {one.dtype}, {one.case}, strict mode")
        with log.caught(name):
            strictly()
    log.failures[before:] = [*log.failures[before + len(values) :], *values]  # a race explains wrong values


def notes_on(op: Op, variant: Variant) -> list[str]:
    """Notes: costs that are no faults."""
    if op.gradient and not variant.has_backward and not variant.has_forward_backward:
        who = "it" if not isinstance(variant, Reference) else "the reference"
        return [f"{who} has no backward: nothing that uses this op can train with it"]
    return []


def schema_of(op: Op) -> dict[str, dict[str, str]]:
    """The parts of a schema that another op must share to be the truth for this one."""
    return {
        "inputs": {name: slot.pattern.text for name, slot in op.inputs.items()},
        "outputs": {name: slot.pattern.text for name, slot in op.outputs.items()},
        "params": {name: param.shape for name, param in op.params.items()},
    }


def held_to(cases: Sequence[Case], op: Op, variant: Variant) -> tuple[list[Case], Reference]:
    """The cases for a truth that is another op's variant: with the further sizes and attributes of this one.

    Raises UsageError where the schemas differ in a tensor, or the variant does not run on the cpu in f64.
    """
    mine, truth = cases[0].op, f"{op.name}.{variant.name}"
    if variant.sources or "f64" not in variant.dtypes:
        raise UsageError(f"{truth} cannot be the truth: that takes a variant for the cpu in f64",
                         hint=f"{op.name}.reference")  # fmt: skip
    for kind, ours in schema_of(mine).items():
        theirs = schema_of(op)[kind]
        if ours != theirs:
            raise UsageError(f"{truth} cannot be the truth for {mine.name}: its {kind} are {theirs}, not {ours}",
                             hint="an op with the same schema, names included")  # fmt: skip
    cases_held = []
    for case in cases:
        shapes = {n: v.shape for n, v in case.values.items() if v is not None and n in op.inputs}
        attrs = op.settle_attrs({n: v for n, v in case.dims.items() if n in op.attrs}, {}, truth)
        cases_held.append(replace(case, dims={**op.solve(shapes, attrs, truth), **case.dims}))
    return cases_held, variant  # type: ignore[return-value]


def measure(
    op: Op,
    variant: Variant,
    registry: Registry,
    device: str = "",
    repeats: int = 10,
    examples: Sequence[Mapping[str, Any]] = (),
) -> dict[str, float]:
    """Median milliseconds of each launcher on the largest example that the variant can run, in its first dtype.

    examples: instead of the op's and the variant's own. Nothing in the simulator, whose time does not predict a GPU's.
    """
    runner = runner_of(device or registry.home(variant).name, registry)
    if not runner.timed:
        return {}
    cases = [make_case(op, e) for e in examples] or None
    trials, _ = trials_of(op, variant, registry, runner=runner, cases=cases)
    able = [t for t in trials if t.dtype == variant.dtypes[0]]
    if not able:
        return {}
    largest = max(able, key=lambda t: t.elements).case
    calls = {call.method: call for t in able if t.case is largest for call in t.calls()}
    return {method: runner.time(call, repeats) for method, call in calls.items()}


SHOWN_FOR = "sm_90a"  # the architecture whose resources are reported, if the variant declares it


def kernels_of(op: Op, variant: Variant, registry: Registry) -> tuple[str, Mapping[str, Resources]]:
    """(architecture, kernel -> resources) of a variant's kernels at its examples; the largest of all instances, of
    dtypes of one size those of the first."""
    trials, _ = trials_of(op, variant, registry, dtypes=[*{itemsize(d): d for d in reversed(variant.dtypes)}.values()])
    declared = architectures_of(variant.arch)
    arch = SHOWN_FOR if SHOWN_FOR in declared else declared[-1]
    return arch, widest(compilations(variant, launches_of(trials), (arch,)))
