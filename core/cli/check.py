"""`core check`: the op check, as a table of sub-checks for each variant, then times."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial

import click

from core.cli.show import emit_json, json_option, limit_option, plugin_option
from core.cli.sizes import check_at
from core.device import open_device
from core.device.cpu import cores
from core.errors import CheckFailed, UsageError
from core.loader import load_registry
from core.op import Op, Variant
from core.registry import Registry
from core.testing.check import RUNNERS, Report, VariantReport, check_variant, find, measure, runs_on
from core.testing.checks import MEANING
from core.testing.processes import processes, registry_of
from core.testing.records import verdicts_of
from core.train.display import Display
from core.verdicts import Verdicts, chip_of


@click.command("check")
@click.argument("what", required=False, metavar="[OP[.VARIANT]]")
@click.option("--all", "everything", is_flag=True, help="Every variant of every op.")
@click.option(
    "--device",
    default="",
    help=f"Where to run: {', '.join(RUNNERS)}; by default the cpu, and the simulator for kernels.",
)
@click.option("--time/--no-time", "timed", default=True, help="Measure the variants that pass.", show_default=True)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Variants at the same time.  [default: one a core where nothing is measured, else 1]",
)
@click.option("--seed", default=0, help="Of the drawn contents.", show_default=True)
@limit_option
@click.option(
    "--shape", multiple=True, metavar="NAME=SIZES",
    help="Check at these sizes: an input's or a param's (x=64,768), or an attr (features=96).",
)  # fmt: skip
@click.option("--config", metavar="CONFIG", help="Check every distinct node of a run config's plan, at its sizes.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
@click.option(
    "--limit", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="With --shape or --config: stop there, and name what is left.  [default: 600 for a config]",
)  # fmt: skip
@plugin_option
@json_option
def command(
    what: str | None,
    everything: bool,
    device: str,
    timed: bool,
    jobs: int | None,
    seed: int,
    shape: tuple[str, ...],
    config: str | None,
    overrides: tuple[str, ...],
    limit: float | None,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check OP's variants against its reference, forward and backward, then time them.

    Exits with 1 when a variant is wrong, naming sub-check, tensor, index, error, example and dtype.
    """
    if shape or config is not None:
        if everything or (config is not None and (what or shape)):
            raise UsageError("--shape is for an OP or an OP.VARIANT, --config for itself", hint="core check --help")
        check_at(what, shape, config, overrides, device, limit, seed, plugin, as_json)
        return
    if overrides or limit is not None:
        raise UsageError("--set is for --config, --limit for --config and --shape", hint="core check --help")
    if bool(what) == everything:
        raise UsageError("core check needs an OP, an OP.VARIANT, or --all", hint="`core ops` lists them")
    registry = load_registry(plugin)
    verdicts = Verdicts(registry)
    timed = timed and (not device or RUNNERS[device].timed)
    asked = chosen(what, registry, device)
    jobs = min(jobs or (1 if timed else cores()), len(asked))
    reports: list[VariantReport] = []
    display = Display(sys.stderr)
    display.status(doing(asked, 0))
    for (op, variant), report in zip(asked, checked(asked, registry, plugin, device, seed, jobs), strict=True):
        reports.append(report)
        if not report.left_out:
            for verdict in verdicts_of(report, chip(report.device)):
                verdicts.keep(variant, verdict, whole=True)
            if report.passed and timed:
                report.times = measure(op, variant, registry, device)
        display.close()
        if not as_json:
            click.echo("\n".join(lines_of(report)) + "\n")
        display.status(doing(asked, len(reports)))
    display.close()
    failed = [r.name for r in reports if not r.passed]
    if as_json:
        emit_json([r.as_json() for r in reports])
    else:
        held = [r for r in reports if not r.left_out]
        click.echo(f"{len(held) - len(failed)} of {len(held)} variants passed")
    if all(r.left_out for r in reports):
        Report(reports).raise_failures()
    if failed:
        raise CheckFailed(f"failed: {', '.join(failed)}", hint="docs/checks.md says what each sub-check asks for")


def doing(asked: Sequence[tuple[Op, Variant]], done: int) -> str:
    """What a terminal shows meanwhile: the variant whose report is the next."""
    if done == len(asked):
        return ""
    op, variant = asked[done]
    return f"checking {op.name}.{variant.name}, {done + 1} of {len(asked)}"


def checked(
    asked: Sequence[tuple[Op, Variant]], registry: Registry, plugins: tuple[str, ...], device: str, seed: int, jobs: int
) -> Iterator[VariantReport]:
    """The reports in the order asked for, of one variant after the other or of `jobs` at the same time."""
    if jobs == 1:
        yield from (check_variant(op, variant, registry, device, seed=seed) for op, variant in asked)
        return
    with processes(jobs) as pool:
        names = [f"{op.name}.{variant.name}" for op, variant in asked]
        yield from pool.map(partial(_checked, plugins, device, seed), names)


def _checked(plugins: tuple[str, ...], device: str, seed: int, name: str) -> VariantReport:
    """In a process of its own."""
    registry = registry_of(plugins)
    ((op, variant),) = find(name, registry, device)
    return check_variant(op, variant, registry, device, seed=seed)


@cache
def chip(device: str) -> str:
    """The GPU that the check ran on; "" elsewhere."""
    return chip_of(open_device(device))


def chosen(what: str | None, registry: Registry, device: str) -> list[tuple[Op, Variant]]:
    if what:
        return find(what, registry, device)
    kind = runs_on(device)
    able = {n: [v for v in registry.variants.get(n, {}).values() if kind in ("", v.device)] for n in registry.ops}
    return [pair for name in sorted(able) if able[name] for pair in find(name, registry, device)]


def lines_of(report: VariantReport) -> Iterator[str]:
    """A variant's table: sub-check, verdict, worst error, how often; failures in full; then times."""
    yield f"{report.name}  ({report.device}; {', '.join(report.dtypes)})"
    failed = report.failed_checks()
    for check, (runs, worst) in report.checks.items():
        verdict = "FAILED" if check in failed else "ok"
        error = f"{worst:.1e}" if worst else "-"
        yield f"  {check:<12} {verdict:<7} {error:>8} {runs:>6}x  {MEANING[check]}"
    if failed:
        yield from report.describe_failures().splitlines()[1:]
    if report.left_out:
        yield f"  left out: {report.left_out}"
        return
    for where, why in report.skipped.items():
        yield f"  left out: {where}: {why}"
    if report.times:
        yield "  median ms: " + ", ".join(f"{label} {ms:.3f}" for label, ms in report.times.items())
