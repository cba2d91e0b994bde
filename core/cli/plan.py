"""`core plan`: everything that a run would do, resolved and planned, without allocating or running it."""

from __future__ import annotations

from typing import Any

import click

from core.cli.kernel_runs import status_line, with_architectures
from core.cli.show import device_option, emit_json, json_option, plugin_option, set_option
from core.devices import DeviceKind
from core.errors import UsageError
from core.registry import Registry

LABELS = {"parameters": "weights"}  # parts of the memory whose name in JSON is that of a count


@click.command("plan")
@click.argument("config")
@click.argument("node", required=False)
@set_option
@device_option("The device to plan for.")
@click.option(
    "--kind", type=click.Choice(["train", "evaluate", "generate"]), default="train", show_default=True,
    help="Purpose of the plan.",
)  # fmt: skip
@click.option("--arch", metavar="SM", help="With cuda: the architecture to compile for.  [default: sm_90a]")
@click.option(
    "--ranks", type=click.IntRange(1), metavar="N", help="Plan one of N ranks, and show the memory of N GPUs."
)
@click.option("--all", "every", is_flag=True, help="List every node, repeated blocks too.")
@plugin_option
@json_option
def command(
    config: str,
    node: str | None,
    overrides: tuple[str, ...],
    device: str,
    kind: str,
    arch: str | None,
    ranks: int | None,
    every: bool,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the plan of CONFIG: nodes, variants, fusions, parameters and bytes.

    On cuda nothing runs and no GPU is needed: every kernel is compiled for --arch. --json also lists each tensor of the
    arena: role, node, first and last step, offset and bytes.

    With NODE (`core plan configs/tiny.toml h.3.fc`): the path from its line in the model's TOML to its op, its
    variant's launchers and their kernels, forward and backward: name, file and line, grid, block, the tensors that each
    reads and writes; then the reason why each other variant was not chosen. The name of the run's optimizer shows its
    update.
    """
    from core.config import resolve_config
    from core.graph import load_model
    from core.plan.way import lines
    from core.ranks.planned_ranks import PlannedRanks
    from core.train.wiring import build_engine, learning_rate

    loaded, registry = resolve_config(config, overrides=overrides, device=device, plugins=plugin)
    planned = planned_device(registry, registry.devices[loaded.device], arch)
    learning_rate(loaded, registry)  # refuses a wrong [schedule] as a run would
    group = PlannedRanks(ranks or 1)
    engine = build_engine(loaded, registry, load_model(loaded.model, registry), None, planned, ranks=group)
    outputs = {"train": (), "evaluate": tuple(engine.graph.loss), "generate": (engine.logits_value,)}[kind]
    capacity = engine.graph.positions if kind == "generate" else 0
    plan = engine.plan(kind, outputs, capacity)
    if node is not None:
        rows = way_of(node, loaded, engine, plan)
        emit_json(rows) if as_json else click.echo("\n".join(lines(rows)))
        return
    with status_line("planning" if planned is None else f"compiling kernels for {planned.arch}"):
        report = _report(loaded, engine, plan, every, ranks)
    emit_json(report) if as_json else _print(report)


def planned_device(registry: Registry, chosen: DeviceKind, arch: str | None) -> Any:
    """The device to plan for, on which nothing runs; None for one without architectures, which is opened."""
    if arch is not None and chosen.planner is None:
        raise UsageError(
            f"--arch {arch}: the plan is for {chosen.name}, which compiles for no GPU",
            hint=f"add {with_architectures(registry)}",
        )
    return chosen.planned(arch or "")


def way_of(node: str, config: Any, engine: Any, plan: Any) -> list[Any]:
    """The rows of a node's way, or of the optimizer's where no node has its name."""
    from core.plan.way import way, way_of_update

    if node == config.optimizer.name and node not in {n.name for n in engine.graph.nodes}:
        there = engine.device.unbacked()
        optimizer = engine.registry.optimizer(node)
        return list(way_of_update(optimizer, engine.update_calls(there), there, engine.chooser))
    return list(way(plan, node, engine.device, engine.chooser))


def _report(config: Any, engine: Any, plan: Any, every: bool, ranks: int | None) -> dict[str, Any]:
    from core.plan import figures
    from core.plan.arena import buffer_rows, fullest
    from core.plan.describe import folded, fusions, node_rows
    from core.plan.ranks_needed import figures_on_ranks

    rows = node_rows(plan)
    about = engine.report(plan)
    on_ranks = figures_on_ranks(about, ranks) if ranks is not None else {}
    launches, traffic = figures.work(about)
    return {
        **on_ranks,
        "model": plan.graph.name,
        "kind": plan.request.kind,
        "device": engine.device.describe(),
        "precision": plan.precision,
        "dims": {k: int(v) if isinstance(v, int) else v for k, v in plan.graph.dims.items()},
        "notes": list(config.notes),
        "nodes": rows if every else folded(rows),
        "fusions": fusions(plan),
        "kept_apart": {fused: sorted(named) for fused, named in plan.blocked_fusions.items()},
        "parameters": plan.graph.parameter_count,
        "parameters_allocated": plan.graph.allocated_count,
        "steps": len(plan.steps),
        "launches": launches,
        "traffic": traffic,
        "buffers": buffer_rows(plan),
        "fullest_step": fullest(plan),
        "bytes": about.memory() | figures.scratch(about),
        "recompute": figures.recompute_options(about) if ranks is None else [],
        "kernels": [
            {"kernel": kernel.name, "variant": kernel.origin, **vars(resources)}
            for kernel, resources in figures.compiled(about).items()
        ],
    }


def _print(report: dict[str, Any]) -> None:
    from core.plan.describe import choice_of, op_of
    from core.plan.fit import needed
    from core.words import cell, human, table

    for note in report["notes"]:
        click.echo(note)
    dims = ", ".join(f"{name} = {cell(size)}" for name, size in report["dims"].items())
    click.echo(f"{report['model']} to {report['kind']} on {report['device']}, in {report['precision']}")
    click.echo(f"dims: {dims}\n")
    header = ("node", "op", "variant", "why", "shape", "parameters")
    rows = [
        [row["node"], op_of(row), choice_of(row), row["why"], "x".join(map(str, row["shape"])), row["parameters"]]
        for row in report["nodes"]
    ]
    for line in table(header, rows):
        click.echo(line)
    for fusion in report["fusions"]:
        times = "once" if fusion["count"] == 1 else f"{fusion['count']} times"
        click.echo(f"\nfused {times}: {fusion['op']} = {fusion['replaces']}", nl=False)
    if report["kept_apart"]:
        named = sorted({op for ops in report["kept_apart"].values() for op in ops})
        note = f"kept apart, since the config names {' and '.join(named)}: {', '.join(report['kept_apart'])}"
        click.echo(f"\n{note}", nl=False)
    padding = report["parameters_allocated"] - report["parameters"]
    click.echo(f"\n\nparameters: {report['parameters']:,}" + (f", and {padding:,} of padding" if padding else ""))
    launched = f"{report['launches']:,} launches" if report["launches"] else f"{report['steps']:,} steps"
    click.echo(f"micro-step: {launched}, which read and write {human(report['traffic'])}")
    inside = {"saved": "(within activations)", "workspace": "(within activations)"}
    sizes = [(LABELS.get(part, part), human(nbytes), inside.get(part, "")) for part, nbytes in report["bytes"].items()]
    for line in table(None, [*sizes, ("in all", human(needed(report["bytes"])), "")], right=(1,)):
        click.echo(line)
    if "ranks" in report:
        _print_ranks(report)
    if report["recompute"]:
        _print_recompute(report["recompute"])
    if report["kernels"]:
        click.echo(f"\n{len(report['kernels'])} kernels compiled:")
        columns = [name for name in report["kernels"][0] if name not in ("kernel", "variant")]
        lines = [[row["variant"], row["kernel"], *[row[c] for c in columns]] for row in report["kernels"]]
        for line in table(("variant", "kernel", *columns), lines):
            click.echo(line)


def _print_ranks(report: dict[str, Any]) -> None:
    """The memory of each rank without activations, and the fewest GPUs of each size for the whole plan."""
    from core.words import human, table

    held = sum(report["bytes"][part] for part in ("parameters", "gradients", "optimizer"))
    how = "a slice of the optimizer's state" if report["sharded"] else "all of the optimizer's state"
    click.echo(f"\neach of {report['ranks']} ranks: weights, gradients and {how} {human(held)}, and the above in all")
    if not report["gpus"]:
        return
    header = ("GPU", "memory", "fewest ranks", "if weights and gradients were in slices too")
    lines = [
        [row["gpus"][0], human(row["memory"]), row["ranks"] or "none", row["all_cut"] or "none"]
        for row in report["gpus"]
    ]
    for line in table(header, lines):
        click.echo(line)
    click.echo("a GPU stands for all of its size; slices of weights and gradients are not in this version")


def _print_recompute(rows: list[dict[str, Any]]) -> None:
    """Savings and costs of `[train] recompute` for each op; FLOPs are of matrix products."""
    from core.words import human, table

    click.echo("\nrecompute, less memory for more computation: --set 'train.recompute=[\"OP\"]'")
    lines = [
        [row["op"], human(row["saves"]), f"{row['flops'] / 1e9:,.1f} ({row['share']:.1%})" if row["flops"] else "none",
         human(row["traffic"]), f"{row['launches']:+,}" if row["launches"] else "", ", ".join(row["unfused"])]
        for row in rows
    ]  # fmt: skip
    for line in table(("op", "saves", "extra GFLOP", "moves more", "launches", "unfused"), lines):
        click.echo(line)
