"""The command `core mutants`. The suite, the op check and the simulator are imported when the command runs."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import click

DEVICES = ("cpu", "sim")


@click.command()
@click.argument("names", nargs=-1, metavar="[OP[.VARIANT]]...")
@click.option("--plugin", multiple=True, metavar="PATH", help="Load a plugin.")
@click.option(
    "--equivalent",
    "lists",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="A reviewed list of equivalent mutants.  [default: those of the plugins, and tests/mutants_equivalent.toml]",
)
@click.option(
    "--device", default="cpu", show_default=True, type=click.Choice(DEVICES), help="Device of the variants to break."
)
@click.option(
    "--sample", metavar="N", type=click.IntRange(min=1), help="Mutants of each launcher.  [default: 20 on sim]"
)
@click.option("--whole", is_flag=True, help="All mutants: hours on sim.  [default on cpu]")
@click.option(
    "--reviewed", "listed", is_flag=True, help="Run the mutants of the reviewed list; the check must catch none."
)
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Processes; 1 starts no other.  [default: one a core]"
)
@click.option("--list", "listing", is_flag=True, help="List the mutants; run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def mutants(
    names: tuple[str, ...],
    plugin: tuple[str, ...],
    lists: tuple[Path, ...],
    device: str,
    sample: int | None,
    whole: bool,
    listed: bool,
    workers: int | None,
    listing: bool,
    as_json: bool,
) -> None:
    """Mutation testing: break ops on purpose and see the check fail.

    Every backward, or with --device sim every kernel, is broken in every known way, one fault at a time. Exit code 1
    if the op check passes a broken version that no reviewed list explains.
    """
    from core import CheckFailed, UsageError
    from core.endings import ending
    from core.testing import load_registry
    from core.testing.mutation import cores, processes

    from . import suite

    if sample and whole:
        raise UsageError("--sample N or --whole, not both")
    registry = load_registry(plugin)
    if listing:
        click.echo("\n".join(suite.listing_of(registry, names, device)))
        return
    reviewed = suite.Reviewed.read(*lists) if lists else suite.Reviewed.shipped()
    number = 0 if whole or listed else sample or suite.SAMPLE[device]
    begun: list[suite.Result] = []
    results: list[suite.Result] = []
    every = [f"{op.name}.{variant.name}" for op, variant in suite.chosen(registry, names, device)]
    workers = workers or cores()
    with (
        ending(partial(suite.rows_text if as_json else suite.totals, every, begun, results), begun),
        processes(workers) if workers > 1 else nullcontext() as pool,
    ):
        judge = suite.in_processes(pool, device, plugin) if pool else None
        for result in suite.run_mutants(registry, names, reviewed, number, device, judge, listed, begun.append):
            results.append(result)
            if not as_json and result.verdicts:
                click.echo("\n".join(suite.lines_of(result, listed)))
    if any(r.caught if listed else r.survivors for r in results):
        raise SystemExit(CheckFailed.exit_code)
