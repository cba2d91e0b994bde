"""`core runs`: the runs of the current folder, their curves, and the first difference of two runs."""

from __future__ import annotations

import io
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.cli.show import emit_json, emit_table, json_option
from core.errors import UsageError

if TYPE_CHECKING:
    from core.train.runs import Summary

FORMATS = (".png", ".svg", ".pdf")


@click.group("runs", invoke_without_command=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Folder of the runs.  [default: runs/]")
@json_option
@click.pass_context
def command(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """List runs: progress, losses and status. `plot` draws runs, `diff` compares two."""
    from core.train.run import RUNS
    from core.train.runs import summaries

    if ctx.invoked_subcommand is not None:
        return
    rows = summaries(folder or RUNS)
    if as_json:
        emit_json([asdict(run) for run in rows])
        return
    if not rows:
        click.echo(f"no runs in {folder or RUNS}/; train one: core train configs/tiny.toml")
        return
    header = ("run", "state", "model", "step", "loss", "best val", "saved", "best", "changed")
    emit_table(header, [row(run) for run in rows])


def row(run: Summary) -> tuple[str, ...]:
    steps = f"{run.step:,}/{run.steps:,}" if run.steps is not None else f"{run.step:,}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed))
    saved, best = (f"{step:,}" if step is not None else "-" for step in (run.saved, run.best_saved))
    return run.name, run.state, run.model, steps, decimal(run.loss), decimal(run.best), saved, best, when


def decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@command.command("plot")
@click.argument("runs", nargs=-1, metavar="RUN...")
@click.option("--value", "name", default="loss", show_default=True, help="loss, norm, lr, val_loss, ms, tokens_per_s.")
@click.option("--out", type=click.Path(path_type=Path), help="A .png, .svg or .pdf; without it, the terminal.")
@click.option("--log", "logarithmic", is_flag=True, help="A logarithmic scale for the value; with --out.")
@json_option
def plot(runs: tuple[str, ...], name: str, out: Path | None, logarithmic: bool, as_json: bool) -> None:
    """Draw a value of RUNs over their steps: into a file, or in the terminal. Without a RUN, the newest."""
    from core.errors import did_you_mean
    from core.train.run_names import find_run
    from core.train.runs import CURVES, curve

    if name not in CURVES:
        raise UsageError(f"--value {name}: expected one of {', '.join(CURVES)}{did_you_mean(name, CURVES)}")
    if out is not None and out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out}: expected a file that ends in {', '.join(FORMATS)}")
    paths = [find_run(run) for run in runs or ("",)]
    curves = {str(path): curve(path, name) for path in paths}
    empty = [path for path, (steps, _) in curves.items() if not steps]
    if empty:
        raise UsageError(
            f"{', '.join(empty)}: no {name} in metrics.jsonl", hint="`core runs` shows the last step of each run"
        )
    if as_json:
        emit_json({path: {"step": steps, name: values} for path, (steps, values) in curves.items()})
    elif out is None:
        in_terminal(curves, name)
    else:
        into_file(curves, name, out, logarithmic)


def in_terminal(curves: dict[str, tuple[list[int], list[float]]], name: str) -> None:
    from core.train.runs import MARKS, drawn

    size = shutil.get_terminal_size((100, 30))
    fine = len(curves) == 1 and can_print("\u28ff")
    width, height = max(20, size.columns - 14), max(6, min(24, size.lines - 6))
    click.echo(f"{name} over steps")
    for line in drawn(list(curves.values()), width, height, fine):
        click.echo(line)
    for index, (path, (steps, values)) in enumerate(curves.items()):
        mark = "" if fine else f"{MARKS[index % len(MARKS)]} "
        click.echo(f"{mark}{path}: {values[-1]:.4g} at step {steps[-1]:,}")


def can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def into_file(curves: dict[str, tuple[list[int], list[float]]], name: str, out: Path, logarithmic: bool) -> None:
    from core.outputs import target_file, write_target

    target_file(out, "--out")
    try:
        import matplotlib
    except ImportError:
        raise UsageError(
            "drawing into a file needs matplotlib", hint='pip install "corelm[plot]"; without --out it is drawn here'
        ) from None
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for path, (steps, values) in curves.items():
        axes.plot(steps, values, label=path, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    if logarithmic:
        axes.set_yscale("log")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, format=out.suffix[1:].lower())
    write_target(out, drawn.getvalue(), "--out")
    click.echo(f"wrote {out}")


@command.command("diff")
@click.argument("a")
@click.argument("b")
@json_option
def diff(a: str, b: str, as_json: bool) -> int:
    """Compare runs A and B: the first step and value that differ, bit for bit, and differences of configs and variants.

    Times are left out. Variants are compared op by op. Exit code 1 for a difference, 0 when all common steps are equal.
    """
    from core.train.run_names import find_run
    from core.train.runs import parting

    paths = find_run(a), find_run(b)
    parted = parting(*paths)
    if as_json:
        emit_json(asdict(parted) | {"a": str(paths[0]), "b": str(paths[1]), "equal": parted.equal})
        return 0 if parted.equal else 1
    for line in parted.settings:
        click.echo(line)
    if not parted.common:
        raise UsageError(
            f"{paths[0]} and {paths[1]} have no step in common", hint="`core runs` shows the last step of each"
        )
    if parted.values is None:
        click.echo(f"the same in all {parted.common:,} steps that both have")
        return 0
    ours, theirs = parted.values
    click.echo(
        f"they differ from step {parted.step:,} on: {parted.name} is {ours!r} in {paths[0]}, {theirs!r} in {paths[1]}"
    )
    for name, (first, second) in parted.last.items():
        click.echo(f"{name}: {first:.6g} and {second:.6g}")
    return 1
