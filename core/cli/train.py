"""`core train`: train a model from a run config."""

from __future__ import annotations

from pathlib import Path

import click

from core import signals
from core.cli.show import device_option, plugin_option
from core.errors import UsageError


@click.command("train")
@click.argument("config")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key: --set train.steps=10.")
@device_option()
@plugin_option
@click.option("--out", metavar="FOLDER", help="The run's folder. Default: runs/<config's stem>, then -2, -3.")
@click.option("--resume", is_flag=True, help="Continue from the newest valid checkpoint, or start without one.")
@click.option("--from", "origin", metavar="CHECKPOINT", help="Continue from this checkpoint or run, in a new folder.")
@click.option("--allow-data-change", is_flag=True, help="Resume although the data has changed; the change is recorded.")
@click.option("--long", is_flag=True, help="Allow a run on the cpu or simulator that is estimated at over an hour.")
@click.option("--quiet", is_flag=True, help="Print nothing; the whole output is in the run folder's train.log.")
def command(
    config: str,
    overrides: tuple[str, ...],
    device: str,
    plugin: tuple[str, ...],
    out: str | None,
    resume: bool,
    origin: str | None,
    allow_data_change: bool,
    long: bool,
    quiet: bool,
) -> int:
    """Train a model by CONFIG: a path, or the name of a shipped config.

    The run's folder gets the config, metrics.jsonl, train.log, samples.jsonl and checkpoints, and health.jsonl where
    `train.health_every` is set. Ctrl-C ends the run after the step and saves; a second one ends it at once. SIGTERM and
    a closed terminal do the same.
    """
    from core.ranks.launched import launched
    from core.train.display import Display
    from core.train.setup import TrainArguments, train

    if resume and origin:
        raise UsageError("--resume and --from exclude each other", hint="--from starts a new folder")
    arguments = TrainArguments(
        config=config,
        overrides=overrides,
        device=device,
        plugins=plugin,
        out=Path(out) if out is not None else None,
        resume=resume,
        origin=Path(origin) if origin else None,
        allow_data_change=allow_data_change,
        long=long,
    )
    with signals.listening(" before the first step: no step was trained, no checkpoint was saved"):
        return train(arguments, Display(quiet=quiet or launched().rank > 0))
