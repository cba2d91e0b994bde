"""The op check: every variant of an op, on every example and dtype, through every sub-check.

`check_op("rmsnorm")` is what a plugin's test calls and `core check rmsnorm` runs. It raises CheckFailed when a
variant is wrong, and returns a `CheckReport` when all are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.errors import BuildError, CheckFailed, UsageError
from core.kernels.nvrtc import Resources, architectures_of
from core.loader import load_registry
from core.op import Op, Reference, Variant
from core.registry import Registry, shorten
from core.testing.cached_decoding import at_once
from core.testing.case import Case, cases_of, make_case
from core.testing.checks import NAMES, SUBCHECKS, applies, check_blocks, check_schema
from core.testing.compiles import check_compile, compilations, launches_of, widest
from core.testing.derived import derive_reference
from core.testing.devices import DeviceRunner, SimRunner
from core.testing.log import Failure, Log, StopChecks
from core.testing.runner import CpuRunner, Runner
from core.testing.trial import Trial
from core.verdicts import largest, sizes_of

SHOWN = 4  # failures of a sub-check that are printed; the rest are counted
QUICK = 3  # examples of a quick check: the smallest
LEAST = 16  # elements below which an example shows too little to be one of them


@dataclass
class VariantReport:
    """What the check of one variant found.

    checks: sub-check -> (times that it ran, worst relative error). times: label -> median milliseconds.
    worst: dtype -> sub-check -> worst error. sizes: dtype -> dim -> the largest size of any example.
    skipped: example and dtype -> why the variant cannot run there. left_out: why nothing was checked, where a library
    that the variant calls is not there to be called. waiting: sub-checks that were not made, because an earlier one
    failed. gaps: lines of its kernels that no example runs. notes: what an author may want to know. Both are no faults.
    """

    op: str
    variant: str
    device: str
    dtypes: tuple[str, ...]
    checks: dict[str, tuple[int, float]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: str = ""
    waiting: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    worst: dict[str, dict[str, float]] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """OP.VARIANT."""
        return f"{self.op}.{self.variant}"

    @property
    def passed(self) -> bool:
        """Whether no sub-check failed."""
        return not self.failures

    def failed_checks(self) -> list[str]:
        """The names of the sub-checks that failed, in the order of docs/checks.md."""
        return [name for name in NAMES if any(f.check == name for f in self.failures)]

    def describe_failures(self, details: bool = False) -> str:
        """One line a failure: sub-check, what and where, example and dtype; details: also the simulator's."""
        lines = [f"{self.name}: FAILED {', '.join(self.failed_checks())}"]
        seen: set[str] = set()
        for check in self.failed_checks():
            failures = [f for f in self.failures if f.check == check]
            new = [f for f in failures if likeness(f) not in seen]
            fresh = list({likeness(f): f for f in reversed(new)}.values())[::-1]
            seen |= {likeness(f) for f in new}
            for f in fresh[:SHOWN]:
                more = [f"      {f.details}"] if details and f.details else []
                lines += [f"  {check}: {f.message}{_where(f)}", *clues(f), *more]
            if rest := len(failures) - len(fresh[:SHOWN]):
                lines.append(f"  {check}: and {rest} more" + (" like these" if fresh else " like those above"))
        return "\n".join(lines)

    @property
    def first(self) -> Failure:
        """The failure to read before all others: the likely cause of the rest."""
        return min(self.failures, key=rank)

    def describe_first(self) -> str:
        """The first failure alone: what was found, what can be seen in it, what to do."""
        first = self.first
        lines = [f"  {first.check:<12} FAILED  {first.message}{_where(first)}", *clues(first)]
        others = [name for name in self.failed_checks() if name != first.check]
        if self.waiting:
            lines.append(f"  {len(self.waiting)} other sub-checks wait for it; -v makes them all")
        elif others:
            lines.append(f"  failed too: {', '.join(others)}; -v shows them all")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The report as `core check --json` prints it."""
        return {
            "op": self.op,
            "variant": self.variant,
            "device": self.device,
            "passed": self.passed,
            "checks": {
                n: {"runs": runs, "worst": finite(worst), "passed": n not in self.failed_checks()}
                for n, (runs, worst) in self.checks.items()
            },
            "failures": [
                {
                    "check": f.check,
                    "message": f.message,
                    "error": finite(f.error),
                    "example": f.case,
                    "dtype": f.dtype,
                    "seen": f.seen,
                    "hint": f.hint,
                    "details": f.details,
                }
                for f in self.failures
            ],
            "waiting": self.waiting,
            "gaps": self.gaps,
            "notes": self.notes,
            "skipped": self.skipped,
            "left_out": self.left_out,
            "median_ms": self.times,
        }


# what comes first where several sub-checks fail at once: not a number because nothing was written is no clue
RANKS = {"schema": 0, "bounds": 2, "unchanged": 2, "written": 3}


def rank(failure: Failure) -> tuple[int, int]:
    """The order in which failures explain each other: a crash, memory, unwritten outputs, wrong values."""
    order = list(NAMES)
    return (1 if failure.raised else RANKS.get(failure.check, 4)), order.index(failure.check)


def clues(failure: Failure) -> list[str]:
    notes = (("seen", failure.seen), ("hint", failure.hint))
    return [f"      {what}: {text}" for what, text in notes if text]


def likeness(failure: Failure) -> str:
    """The same for findings that differ only in numbers: one of them is enough to read. A wrong value is known by its
    sub-check, its tensor and the way it was asked for; what a launcher raised, by its text wherever it came up."""
    words = failure.message.partition(": relative error")
    return (failure.check if words[1] else "") + re.sub(r"0x[0-9a-f]+|-?\d+", "#", words[0])


def _where(failure: Failure) -> str:
    return f"\n      in {failure.dtype}, example {failure.case}" if failure.case not in ("", "all") else ""


def finite(number: float) -> float | None:
    """JSON has no infinities."""
    return number if number - number == 0 else None


@dataclass
class CheckReport:
    """The reports of all variants that were asked for."""

    variants: list[VariantReport]

    @property
    def passed(self) -> bool:
        """Whether every variant passed."""
        return all(v.passed for v in self.variants)

    def raise_failures(self) -> None:
        """CheckFailed that says everything, unless all passed; BuildError where nothing could be checked."""
        if self.variants and all(v.left_out for v in self.variants):
            what = "; ".join(f"{v.name}: {v.left_out}" for v in self.variants)
            raise BuildError(f"nothing could be checked on {self.variants[0].device}: {what}")
        failed = [v.describe_failures() for v in self.variants if not v.passed]
        if failed:
            raise CheckFailed("\n".join(failed), hint="docs/checks.md explains each sub-check")


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
    here = [v for v in registry.variants.get(name, {}).values() if kind in ("", v.device)]
    if not here:
        raise BuildError(f'op "{name}" has no variant for {device or "any device"}, so there is nothing to check')
    return [(op, v) for v in sorted(here, key=lambda v: (not isinstance(v, Reference), v.device, v.name))]


def runs_on(device: str, registry: Registry) -> str:
    """The `Variant.device` that is checked on `device`; "" for "", which is all."""
    return registry.device(device).runs if device else ""


def runner_of(device: str, registry: Registry) -> Runner:
    """What runs variants on a device in the op check. Raises UsageError for a name that no device has."""
    kind = registry.device(device)
    if not kind.compiles:
        return CpuRunner(registry, kind)
    return SimRunner(registry, kind) if kind.simulated else DeviceRunner(registry, kind)


def reference_of(op: Op, registry: Registry) -> Reference:
    """The truth of the check: the op's reference, or the one that follows from a fused op's pattern."""
    if op.statements:
        return derive_reference(op, registry)
    reference = registry.variant(op.name, "reference")
    if not isinstance(reference, Reference):
        raise BuildError(f"{op.name}.reference is no Reference")
    return reference


def check_variant(
    op: Op,
    variant: Variant,
    registry: Registry,
    device: str = "",
    *,
    seed: int = 0,
    stop: bool = False,
    reference: Reference | None = None,
    examples: Sequence[int] | None = None,
    archs: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    quick: bool = False,
    whole: bool = True,
    against: tuple[Op, Variant] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> VariantReport:
    """All sub-checks of one variant on `device`, by default its `Registry.home`. `stop`: give up at the first failure.

    examples: the numbers of those that are enough, of the op's and then the variant's own. archs: what kernels are
    compiled for. dtypes: of the variant's. Without them, all: these are for tests that run often.
    quick: one dtype, the smallest examples, nothing compiled for other chips. whole: False leaves further sub-checks
    waiting once one has failed. against: an op of the same schema and its variant, the truth in place
    of the reference. tell: called with the present activity, for a display.
    """
    log = Log(stop=stop)
    device = device or registry.home(variant).name
    report = VariantReport(op.name, variant.name, device, variant.dtypes)
    runner = runner_of(device, registry)
    try:
        cases = cases_of(op, variant, seed, examples)
        truth = reference or reference_of(op, registry)
        if against is not None:
            cases, truth = held_to(cases, *against)
        if quick:
            dtypes, archs = quick_dtypes(variant), ()
        trials, report.skipped = trials_of(
            op, variant, registry, runner=runner, cases=cases, reference=truth, dtypes=dtypes
        )
        if variant.library and not trials:
            report.left_out = "; ".join(sorted(set(report.skipped.values())))
            return report
        trials = smallest(trials) if quick else trials
        fed = decoded_trials(op, variant, registry, runner=runner, cases=cases, reference=truth, but=trials)
        every = [t for t in (*trials, *fed) if not dtypes or t.dtype in dtypes]
        report.sizes = {d: largest(sizes_of(op, t.dims) for t in every if t.dtype == d) for d in variant.dtypes}
        check_schema(log, variant, every, list(report.skipped.values()))
        report.waiting = run_checks(log, every, whole, tell)
        log.case, log.dtype = "all", "all"
        if not report.waiting and not quick:
            check_blocks(log)
        if variant.sources and not log.failures and archs != ():
            tell("compiling for every architecture")
            check_compile(log, variant, trials, archs)
        if variant.sources and not log.failures and not quick and runner.slow:
            report.gaps = runner.gaps(variant)
            if not report.gaps:
                log.passed("coverage")
        report.notes = notes_on(op, variant)
    except BuildError as error:
        log.failures.append(
            Failure("schema", f"{shorten(op.where)}: {error.message}", float("nan"), "", "", hint=error.hint)
        )
    except StopChecks:
        pass
    report.checks = {n: (log.ran[n], log.worst[n]) for n in NAMES if n in log.ran}
    report.worst = log.by_dtype
    report.failures = log.failures
    return report


def run_checks(log: Log, trials: Sequence[Trial], whole: bool, tell: Callable[[str], None]) -> list[str]:
    """Make the sub-checks in their order; the names of those that wait because an earlier one failed."""
    names = list(SUBCHECKS)
    for number, name in enumerate(names):
        if log.failures and not whole:
            return [*names[number:], *(["compile"] if trials and trials[0].variant.sources else ["blocks"])]
        for trial in (t for t in trials if applies(name, t)):
            log.case, log.dtype = trial.case.label, trial.dtype
            tell(f"{name}, {trial.dtype}, {trial.case.label}")
            with log.caught(name):
                SUBCHECKS[name](log, trial)
    return []


def quick_dtypes(variant: Variant) -> tuple[str, ...]:
    """f64 for a reference, whose gradient is held to differences there; else f32."""
    wanted = "f64" if isinstance(variant, Reference) else "f32"
    return (wanted,) if wanted in variant.dtypes else tuple(variant.dtypes[:1])


def smallest(trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the few smallest examples; those of next to no elements only where there are no others."""
    cases = sorted({id(t.case): t for t in trials}.values(), key=lambda t: (t.elements < LEAST, t.elements))
    kept = {id(t.case) for t in cases[:QUICK]}
    return [t for t in trials if id(t.case) in kept]


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
    """The cases for a truth that is another op's variant: with the sizes and attributes that this one has besides.

    Raises UsageError where the schemas differ in a tensor, or the variant does not run on the cpu in f64.
    """
    mine, what = cases[0].op, f"{op.name}.{variant.name}"
    if variant.sources or "f64" not in variant.dtypes:
        raise UsageError(f"{what} cannot be the truth: that takes a variant for the cpu in f64",
                         hint=f"{op.name}.reference")  # fmt: skip
    for kind, ours in schema_of(mine).items():
        theirs = schema_of(op)[kind]
        if ours != theirs:
            raise UsageError(f"{what} cannot be the truth for {mine.name}: its {kind} are {theirs}, not {ours}",
                             hint="an op with the same schema, names included")  # fmt: skip
    cases_held = []
    for case in cases:
        shapes = {n: v.shape for n, v in case.values.items() if v is not None and n in op.inputs}
        attrs = op.settle_attrs({n: v for n, v in case.dims.items() if n in op.attrs}, {}, what)
        cases_held.append(replace(case, dims={**op.solve(shapes, attrs, what), **case.dims}))
    return cases_held, variant  # type: ignore[return-value]


def trials_of(
    op: Op,
    variant: Variant,
    registry: Registry,
    *,
    runner: Runner | None = None,
    cases: Sequence[Case] | None = None,
    reference: Reference | None = None,
    dtypes: Sequence[str] | None = None,
) -> tuple[list[Trial], dict[str, str]]:
    """Every case in every dtype and mode in which the variant can run; and why not elsewhere, by example and dtype.

    runner: the cpu's where nothing is run but recorded. cases, reference, dtypes: the op's and the variant's own.
    """
    home = CpuRunner(registry)
    truth = reference or reference_of(op, registry)
    runner = home if runner is None else runner
    trials, skipped = [], {}
    for case in cases_of(op, variant) if cases is None else cases:
        for dtype in sorted(dtypes or variant.dtypes, reverse=True):  # f64 first: there the numbers are clearest
            for mode in modes_of(op, variant):
                trial = Trial(case, variant, truth, dtype, mode, runner, home)
                why_not = runner.can_run(variant) or trial.why_not()
                if why_not is None:
                    trials.append(trial)
                else:
                    skipped[f"{case.label} in {dtype}"] = why_not
    return trials, skipped


def decoded_trials(
    op: Op,
    variant: Variant,
    registry: Registry,
    *,
    runner: Runner,
    cases: Sequence[Case],
    reference: Reference,
    but: Sequence[Trial],
) -> list[Trial]:
    """Trials of the cases whose tokens the variant does not take all at once (they are not in `but`): in pieces."""
    if not op.state or runner.can_run(variant):
        return []
    home, trials = CpuRunner(registry), []
    held = {(id(trial.case), trial.dtype) for trial in but}
    for case in cases:
        for dtype in variant.dtypes:
            trial = Trial(case, variant, reference, dtype, "forward", runner, home)
            if (id(case), dtype) not in held and (count := at_once(trial)):
                trial.at_once = count
                trials.append(trial)
    return trials


def modes_of(op: Op, variant: Variant) -> list[str]:
    """The ways in which a plan may run this variant."""
    if not op.gradient:
        return ["forward"]
    able = {"backward": variant.has_backward, "forward_backward": variant.has_forward_backward}
    modes = [mode for mode, has in able.items() if has]
    return modes if variant.has_backward else ["forward", *modes]


def measure(
    op: Op,
    variant: Variant,
    registry: Registry,
    device: str = "",
    repeats: int = 10,
    examples: Sequence[Mapping[str, Any]] = (),
) -> dict[str, float]:
    """Median milliseconds of each launcher on the largest example that the variant can run, in its first dtype.

    examples: instead of the op's and the variant's own. Nothing in the simulator, whose time says nothing of a GPU's.
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
    """(architecture, kernel -> resources) of what a variant launches at its examples; the most of all instances."""
    trials, _ = trials_of(op, variant, registry)
    declared = architectures_of(variant.arch)
    arch = SHOWN_FOR if SHOWN_FOR in declared else declared[-1]
    return arch, widest(compilations(variant, launches_of(trials), (arch,)))
