"""`core bench`: the time of a config's training step and its breakdown by op; or the times of an op's variants."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.cli.kernel_runs import refuse_untimed, status_line
from core.cli.show import device_option, emit_json, json_option, json_text, plugin_option, set_option
from core.config.shipped import shipped
from core.endings import ending
from core.errors import UsageError, did_you_mean, nearest
from core.ranks.launched import launched
from core.words import human, ms, percent, table

if TYPE_CHECKING:
    from core.devices import DeviceKind
    from core.measure.bench import Bench
    from core.op import Op, Variant
    from core.registry import Registry


@click.command("bench")
@click.argument("target", metavar="CONFIG|OP[.VARIANT]")
@set_option
@device_option()
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Number of timings.")
@click.option("--profile", metavar="FILE", help="With CONFIG: write a micro-step's trace for Perfetto.")
@click.option(
    "--shape", multiple=True, metavar="NAME=SIZES",
    help="With OP: an input's shape (x=64,768) or an attr (features=96).  [default: the largest example]",
)  # fmt: skip
@click.option("--sass", is_flag=True, help="With CONFIG: model its kernels' code on --gpu; nothing runs.")
@click.option("--gpu", metavar="NAME", help="With --sass: the GPU, by its driver's name.  [default: H100 80GB HBM3]")
@plugin_option
@json_option
def command(
    target: str,
    overrides: tuple[str, ...],
    device: str,
    steps: int,
    profile: str | None,
    shape: tuple[str, ...],
    sass: bool,
    gpu: str | None,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time a training step of CONFIG, on random tokens: tokens/s, utilisation, and each op with its roofline bound.

    With an op (`core bench matmul --shape x=256,768 --shape features=3072`): each variant that can run on the device.
    With --sass: the machine code of CONFIG's kernels, and a lower bound of a micro-step's time on a GPU, which this
    machine need not have.
    """
    from core.loader import load_registry

    if gpu and not sass:
        raise UsageError("--gpu is for --sass", hint="a step is timed on this machine's GPU")
    if sass:
        from core.cli.bench_sass import report_sass

        report_sass(target, overrides, device, gpu, plugin, as_json)
        return
    registry = load_registry(plugin)
    if target.partition(".")[0] in registry.ops and not Path(target).exists():
        if profile or overrides:
            raise UsageError("--set and --profile are for a config", hint="core bench configs/gpt2_124m.toml")
        kind = registry.device(device)
        refuse_untimed(kind)
        if launched().rank:  # an op is timed once
            return
        if registry.op(target.partition(".")[0]).collective:
            report_collective(target, registry, kind, as_json)
            return
        report_op(target, registry, kind, shape, steps, as_json)
        return
    if shape:
        close = did_you_mean(target, registry.ops)
        raise UsageError(f'--shape is for an op, and "{target}" is none{close}', hint="`core ops` lists them")
    op = nearest(target.partition(".")[0], registry.ops)
    if op and not Path(target).exists() and shipped(target) is None:
        raise UsageError(
            f'no config and no op is called "{target}"; did you mean the op "{op}"?', hint="see `core ops`"
        )
    report(target, overrides, device, plugin, steps, profile, as_json)


# --- a config ----------------------------------------------------------------------------------------------------


def report(
    config: str,
    overrides: Sequence[str],
    device: str,
    plugin: Sequence[str],
    steps: int,
    profile: str | None,
    as_json: bool,
) -> None:
    from core.config import micro_steps, resolve_config
    from core.graph import load_model
    from core.measure.bench import bench
    from core.measure.communication import together
    from core.outputs import target_file
    from core.plan import TRAIN
    from core.plan.figures import check_fit
    from core.ranks.joining import join
    from core.train.wiring import build_engine

    if profile is not None:
        target_file(Path(profile), "--profile")
    loaded, registry = resolve_config(config, overrides=overrides, device=device, plugins=plugin)
    refuse_untimed(kind := registry.devices[loaded.device])
    model, ranks = load_model(loaded.model, registry), join(registry.ranks, kind, launched(), loaded.train.rank_timeout)
    opened = kind.open(ranks.local)
    engine = build_engine(loaded, registry, model, None, opened)
    B, T = engine.graph.batch
    micro = micro_steps(loaded.train.tokens_per_step, B, T, ranks.size, where=loaded.where("train.tokens_per_step"))
    plan = engine.plan(TRAIN)
    check_fit(engine.report(plan))
    engine.initialize(loaded.seed)
    if ranks.leads:
        click.echo(f"{engine.graph.name} on {opened.describe()}, in {engine.precision}; B = {B}, T = {T}", err=True)
    with status_line(f"timing {steps} steps of {micro} micro-steps"):
        timings = bench(engine, micro, steps)
    shared = None
    if ranks.size > 1:
        del engine  # its memory is that of the next one
        engine = build_engine(loaded, registry, model, None, opened, ranks=ranks)
        engine.initialize(loaded.seed)
        shared, timings = together(engine, timings, micro, steps)
        ranks.finish()
    if not ranks.leads:
        return
    about: dict[str, Any] = {"model": engine.graph.name, "device": opened.describe(), "precision": engine.precision}
    about |= {"B": B, "T": T, "micro_steps": micro} | ({"ranks": shared.data()} if shared else {})
    if shared and not as_json:
        click.echo(shared.line())
    show(about, timings, engine.report(plan).memory(), profile, as_json)


def show(about: dict[str, Any], timings: Bench, memory: dict[str, int], profile: str | None, as_json: bool) -> None:
    """Print a config's times, and write a micro-step to `profile`."""
    from core.measure.bench import chrome_trace
    from core.outputs import write_target

    if profile is not None:
        write_target(Path(profile), json.dumps(chrome_trace(timings, about["model"])).encode(), "--profile")
    if as_json:
        emit_json(about | as_data(timings, memory))
        return
    for line in config_lines(timings, sum(memory[k] for k in ("parameters", "gradients", "optimizer", "activations"))):
        click.echo(line)
    if profile is not None:
        click.echo(f"\n{profile}: open it at https://ui.perfetto.dev")


def as_data(timings: Bench, memory: dict[str, int]) -> dict[str, Any]:
    return {
        "ms": [1e3 * s for s in timings.steps],
        "ms_median": 1e3 * timings.seconds,
        "tokens_per_s": timings.tokens_per_s,
        "flops_per_token": {"full": timings.flops.full, "needed": timings.flops.needed},
        "mfu": {"full": timings.utilisation(timings.flops.full), "needed": timings.utilisation(timings.flops.needed)},
        "memory": memory,
        "update_ms": 1e3 * timings.update,
        "gaps_ms": 1e3 * timings.gaps,
        "ops": [vars(row) for row in timings.rows()],
    }


def config_lines(timings: Bench, memory: int) -> Iterator[str]:
    full, needed = timings.flops.full, timings.flops.needed
    yield f"step: {ms(timings.seconds)} ms, median of {len(timings.steps)}; least {ms(min(timings.steps))} ms"
    yield f"tokens/s: {timings.tokens_per_s:,.0f}"
    yield f"MFU: {percent(timings.utilisation(full))} with every product of attention ({full / 1e6:.1f} MFLOP a token)"
    yield f"     {percent(timings.utilisation(needed))} without the masked ones ({needed / 1e6:.1f} MFLOP a token)"
    yield f"memory, planned: {human(memory)}"
    yield ""
    rows = []
    for row in timings.rows():
        floor = "n/a" if row.floor is None else ms(row.floor)
        times = "n/a" if not row.floor else f"{row.seconds / row.floor:.1f}"
        share = percent(timings.micro * row.seconds / timings.seconds)
        rates = f"{row.nbytes / row.seconds / 1e9:.1f}", f"{row.flops / row.seconds / 1e12:.3g}" if row.flops else ""
        rows.append([row.op, row.variant, row.kind, row.launches, ms(row.seconds), share, *rates, floor, times])
    rows.append(["update", "", "", 1, ms(timings.update), percent(timings.update / timings.seconds), "", "", "", ""])
    header = ("op", "variant", "direction", "times", "ms", "of step", "GB/s", "TFLOP/s", "floor ms", "over floor")
    yield from table(header, rows)
    yield f"\nbetween launches: {ms(timings.gaps)} ms of a step (each op was timed separately)"


# --- an op -------------------------------------------------------------------------------------------------------


def variants_of(target: str, registry: Registry, kind: DeviceKind) -> tuple[Op, dict[str, Variant]]:
    """The op of OP or OP.VARIANT, and the variants that it names and that a device runs, by OP.VARIANT."""
    name, _, only = target.partition(".")
    variants = [registry.variant(name, only)] if only else registry.variants[name].values()
    return registry.op(name), {f"{name}.{v.name}": v for v in variants if v.device == kind.runs}


def report_op(
    target: str, registry: Registry, kind: DeviceKind, shape: Sequence[str], repeats: int, as_json: bool
) -> None:
    """The times of an op's variants, one row each: milliseconds of each launcher, none of one that cannot run."""
    from core.testing.check import measure
    from core.testing.shapes import example_of

    op, variants = variants_of(target, registry, kind)
    example = example_of(op, shape)
    times: dict[str, dict[str, float]] = {}

    def text(cut_off: str) -> str:
        if as_json:
            return rows_text(variants, times, cut_off, lambda name: {"shape": example, "ms": times.get(name, {})})
        lines = op_lines(times, example) if times or not variants else []
        return "\n".join([*lines, *not_timed(variants, times, cut_off)])

    with ending(text, times):
        for name, variant in variants.items():
            times[name] = measure(op, variant, registry, kind.name, repeats, [example])


def rows_text(
    names: Iterable[str], times: Container[str], cut_off: str, row_of: Callable[[str], dict[str, Any]]
) -> str:
    """A row for each variant as JSON. cut_off: why the command ended early, in the rows of those without times."""
    return json_text(
        [{"variant": name} | row_of(name) | {"cut_off": "" if name in times else cut_off} for name in names]
    )


def not_timed(names: Iterable[str], times: Container[str], cut_off: str) -> list[str]:
    """A line on the variants that were not timed before a command was cut off."""
    waiting = [name for name in names if name not in times]
    return [f"not timed: {', '.join(waiting)}: {cut_off}"] if waiting else []


def report_collective(target: str, registry: Registry, kind: DeviceKind, as_json: bool) -> None:
    """The times of a collective op's variants on two ranks, by size."""
    from core.testing.on_ranks import times_on_ranks  # of ops that need several ranks

    op, variants = variants_of(target, registry, kind)
    times: dict[str, Any] = {}

    def text(cut_off: str) -> str:
        if as_json:
            return rows_text(variants, times, cut_off, lambda name: {"times": times.get(name, [])})
        return "\n".join([*collective_lines(times), *not_timed(variants, times, cut_off)])

    with ending(text, times):
        for name, variant in variants.items():
            times[name] = times_on_ranks(op, variant, registry, kind.name)


def collective_lines(times: Mapping[str, Any]) -> Iterator[str]:
    from core.testing.on_ranks import RANKS

    cells = [
        [variant, human(row["bytes"]), f"{row['ms']:.3f}", f"{row['memcpys']:.1f}"]
        for variant, rows in times.items() if not isinstance(rows, str) for row in rows
    ]  # fmt: skip
    yield from table(("variant", "flat", f"ms on {RANKS} ranks", "times a copy"), cells)
    yield from (f"{variant}: not timed: {why}" for variant, why in times.items() if isinstance(why, str))


def op_lines(times: Mapping[str, Mapping[str, float]], example: Mapping[str, Any]) -> list[str]:
    if not times:
        return ["no variant of this op runs on this device"]
    shape = ", ".join(f"{k} = {'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in example.items())
    methods = list(dict.fromkeys(m for row in times.values() for m in row))
    cells = [[name, *[f"{row[m]:.3f}" if m in row else "-" for m in methods]] for name, row in times.items()]
    return [f"{shape}; ms, median", *table(("variant", *methods), cells)]
