"""`core check`: the op check, as a table of sub-checks for each variant, then times."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial

import click

from core.cli.kernel_runs import branches_option
from core.cli.show import json_option, json_text, plugin_option, set_option
from core.cli.sizes import check_at
from core.devices import RESIDENT, DeviceKind
from core.endings import ending
from core.errors import CheckFailed, UsageError
from core.loader import load_registry
from core.op import Op, Variant
from core.registry import Registry
from core.testing.check import check_variant, find, measure, runs_on
from core.testing.check_report import CheckReport, VariantReport
from core.testing.checks import MEANING
from core.testing.processes import in_order, registry_of, say
from core.testing.records import keep, verdicts_of
from core.threads import cores
from core.train.display import Display
from core.verdicts import Verdicts, chip_of


@click.command("check")
@click.argument("target", required=False, metavar="[OP[.VARIANT]]")
@click.option("--all", "everything", is_flag=True, help="Check every variant of every op.")
@click.option(
    "--device",
    default="",
    help=f"{', '.join(RESIDENT)}, or a plugin's device.  [default: cpu; the simulator for kernels]",
)
@click.option("--time/--no-time", "timed", default=True, help="Time the variants that pass.", show_default=True)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Variants checked in parallel.  [default: one per core without timing, else 1]",
)
@click.option("--quick", is_flag=True, help="For authors: one dtype, the smallest examples, no compile sweep.")
@click.option("--recompile", is_flag=True, help="Repeat compilations that are recorded as passed.")
@click.option(
    "--against",
    default="",
    metavar="OP.VARIANT",
    help="Ground truth in place of OP's reference: a cpu variant of an op with the same schema.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show all sub-checks and failures.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of random tensor contents.", show_default=True)
@branches_option
@click.option(
    "--shape", multiple=True, metavar="NAME=SIZES",
    help="Check at these sizes: an input's or a param's (x=64,768), or an attr (features=96).",
)  # fmt: skip
@click.option("--config", metavar="CONFIG", help="Check every distinct node of a run config's plan, at its sizes.")
@set_option
@click.option(
    "--limit", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="With --shape or --config: time limit; unchecked sizes are listed.  [default: 600 for a config]",
)  # fmt: skip
@plugin_option
@json_option
def command(
    target: str | None,
    everything: bool,
    device: str,
    timed: bool,
    jobs: int | None,
    quick: bool,
    recompile: bool,
    against: str,
    verbose: bool,
    seed: int,
    shape: tuple[str, ...],
    config: str | None,
    overrides: tuple[str, ...],
    limit: float | None,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare OP's variants with its reference, forward and backward, then time them.

    A wrong variant gives exit code 1, and a report of sub-check, tensor, index, error, example and dtype: of its first
    failure, which often causes the others; -v reports all.
    """
    if shape or config is not None:
        if everything or (config is not None and (target or shape)):
            raise UsageError("--shape is for an OP or an OP.VARIANT, --config for itself", hint="core check --help")
        check_at(target, shape, config, overrides, device, limit, seed, plugin, as_json)
        return
    if overrides or limit is not None:
        raise UsageError("--set is for --config, --limit for --config and --shape", hint="core check --help")
    if bool(target) == everything:
        raise UsageError("core check needs an OP, an OP.VARIANT, or --all", hint="`core ops` lists them")
    registry = load_registry(plugin)
    timed = timed and not quick and (not device or registry.device(device).real_time)
    pairs = chosen(target, registry, device)
    jobs = min(jobs or (1 if timed else cores()), len(pairs))
    how = CheckOptions(device, seed, quick, against, whole=verbose or as_json, recorded=not recompile)
    done = Done(pairs, lambda variant: device or registry.home(variant).name)
    with ending(done.as_json if as_json else done.summary, done.reports):
        fill(done, registry, plugin, how, jobs, timed, None if as_json else verbose)
    reports = list(done.reports.values())
    failed = [r.name for r in reports if not r.passed]
    if all(r.left_out for r in reports):
        CheckReport(reports).raise_failures()
    if failed:
        raise CheckFailed(f"failed: {', '.join(failed)}", hint="docs/checks.md describes each sub-check")


@dataclass
class Done:
    """The reports of a command by OP.VARIANT, in the order of their ends; finished: those with their times."""

    pairs: Sequence[tuple[Op, Variant]]
    device_of: Callable[[Variant], str]
    reports: dict[str, VariantReport] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)

    def as_json(self, cut_off: str = "") -> str:
        """A row for each variant. cut_off: why the check ended early, in the rows of variants that it did not finish;
        one that it did not check has not passed."""
        rows = []
        for op, variant in self.pairs:
            report = self.reports.get(name := f"{op.name}.{variant.name}")
            row = (report or VariantReport(op.name, variant.name, self.device_of(variant), variant.dtypes)).as_json()
            passed = report is not None and report.passed
            rows.append(row | {"passed": passed, "cut_off": "" if name in self.finished else cut_off})
        return json_text(rows)

    def summary(self, cut_off: str = "") -> str:
        """`3 of 4 variants passed, 2 not checked: ended by SIGINT`"""
        held = [r for r in self.reports.values() if not r.left_out]
        line = f"{sum(r.passed for r in held)} of {len(held)} variants passed"
        waiting = len(self.pairs) - len(self.reports)
        return f"{line}, {waiting} not checked: {cut_off}" if waiting else line


def fill(
    done: Done, registry: Registry, plugin: tuple[str, ...], how: CheckOptions, jobs: int, timed: bool,
    verbose: bool | None,
) -> None:  # fmt: skip
    """Check and time variants, keep their verdicts, and print each report when it is there; None prints none. An early
    end leaves the reports that are there, also of variants whose turn had not come."""
    verdicts, display, pairs = Verdicts(registry), Display(sys.stderr), done.pairs
    early: dict[str, VariantReport] = {}

    def status(text: str = "") -> None:
        display.status(doing(pairs, len(done.reports)) + (f": {text}" if text else ""))

    def take(op: Op, variant: Variant, report: VariantReport, timed: bool) -> None:
        report.plugins = plugin
        done.reports[report.name] = report
        try:
            if not report.left_out and not how.partial:
                for verdict in verdicts_of(report, chip(registry.device(report.device))):
                    keep(verdicts, variant, verdict, whole=True)
                if report.passed and timed:
                    report.times = measure(op, variant, registry, how.device)
            done.finished.add(report.name)
        finally:
            display.close()
            if verbose is not None:
                click.echo("\n".join(lines_of(report, verbose)) + "\n")

    status()
    try:
        with closing(checked(pairs, registry, plugin, how, jobs, status, early)) as results:
            for (op, variant), report in zip(pairs, results, strict=True):
                take(op, variant, report, timed)
                status()
    finally:
        for op, variant in pairs:
            if (name := f"{op.name}.{variant.name}") in early:
                take(op, variant, early[name], timed=False)
        display.close()


def doing(pairs: Sequence[tuple[Op, Variant]], done: int) -> str:
    """The status line during a check: the variant whose report is the next."""
    if done == len(pairs):
        return ""
    op, variant = pairs[done]
    return f"checking {op.name}.{variant.name}, {done + 1} of {len(pairs)}"


@dataclass(frozen=True)
class CheckOptions:
    """The options of a check, without its variants. standard: "OP.VARIANT", or "" for each op's reference."""

    device: str
    seed: int
    quick: bool
    standard: str
    whole: bool
    recorded: bool

    @property
    def partial(self) -> bool:
        """Whether the check was partial, so that its result is no verdict on the variant."""
        return self.quick or bool(self.standard)

    def check(
        self, op: Op, variant: Variant, registry: Registry, on_activity: Callable[[str], None] = lambda text: None
    ) -> VariantReport:
        against = None
        if self.standard:
            ((truth_op, truth),) = find(named(self.standard), registry, "")
            against = (truth_op, truth)
        return check_variant(
            op, variant, registry, self.device, seed=self.seed, quick=self.quick, whole=self.whole, against=against,
            recorded=self.recorded, on_activity=on_activity,
        )  # fmt: skip


def named(against: str) -> str:
    """The variant of `--against`: of an op alone its reference."""
    return against if "." in against else f"{against}.reference"


def checked(
    pairs: Sequence[tuple[Op, Variant]],
    registry: Registry,
    plugins: tuple[str, ...],
    how: CheckOptions,
    jobs: int,
    on_activity: Callable[[str], None],
    early: dict[str, VariantReport],
) -> Generator[VariantReport, None, None]:
    """The reports in the given order, of one variant after the other or of `jobs` at the same time. early: of
    processes.in_order."""
    if jobs == 1:
        yield from (how.check(op, variant, registry, on_activity) for op, variant in pairs)
        return
    names = [f"{op.name}.{variant.name}" for op, variant in pairs]
    yield from in_order(jobs, partial(_checked, plugins, how), names, on_activity, early)


def _checked(plugins: tuple[str, ...], how: CheckOptions, name: str) -> VariantReport:
    """In a process of its own."""
    registry = registry_of(plugins)
    ((op, variant),) = find(name, registry, how.device)
    return how.check(op, variant, registry, partial(say, name))


@cache
def chip(kind: DeviceKind) -> str:
    """The GPU that the check ran on; "" elsewhere."""
    return chip_of(kind.open())


def chosen(target: str | None, registry: Registry, device: str) -> list[tuple[Op, Variant]]:
    if target:
        return find(target, registry, device)
    kind = runs_on(device, registry)
    able = {n: [v for v in registry.variants.get(n, {}).values() if kind in ("", v.device)] for n in registry.ops}
    return [pair for name in sorted(able) if able[name] for pair in find(name, registry, device)]


def lines_of(report: VariantReport, verbose: bool = False) -> Iterator[str]:
    """A variant's table: sub-check, verdict, worst error, how often; then times. Of one that failed the first failure
    alone, and with `verbose` the table and all of them."""
    yield f"{report.name}  ({report.device}; {', '.join(report.dtypes)})"
    if report.passed or verbose:
        yield from table_of(report)
    else:
        yield report.describe_first()
        return
    if report.failures:
        yield from report.describe_failures(details=verbose).splitlines()[1:]
    if report.left_out:
        yield f"  not checked: {report.left_out}"
        return
    yield from (f"  left out: {where}: {why}" for where, why in report.skipped.items())
    yield from (f"  note: {note}" for note in [*report.notes, *advice_on(report.gaps, verbose)])
    if report.times:
        yield "  median ms: " + ", ".join(f"{label} {ms:.3f}" for label, ms in report.times.items())


SHOWN = 8  # gaps of a variant that are printed without -v


def advice_on(gaps: Sequence[str], verbose: bool = False) -> list[str]:
    """The advice to an author about lines that no example reaches."""
    if not gaps:
        return []
    shown = list(gaps if verbose else gaps[:SHOWN])
    more = [f"and {len(gaps) - len(shown)} more; -v names them"] if len(gaps) > len(shown) else []
    return [*shown, *more, "add an example to the variant's `examples` that reaches this, with sizes beyond its blocks"]


def table_of(report: VariantReport) -> Iterator[str]:
    failed = report.failed_checks()
    for check, (runs, worst) in report.checks.items():
        verdict = "FAILED" if check in failed else "ok"
        error = f"{worst:.1e}" if worst else "-"
        yield f"  {check:<12} {verdict:<7} {error:>8} {runs:>6}x  {MEANING[check]}"
    if report.gaps:
        yield f"  {'coverage':<12} {'note':<7} {'-':>8} {len(report.gaps):>6}x  {MEANING['coverage']}"
