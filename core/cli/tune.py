"""`core tune`: time a config's candidates on this machine, and keep the fastest for its runs here."""

from __future__ import annotations

from typing import Any

import click

from core.cli.show import emit_json, json_option, plugin_option
from core.errors import UsageError


@click.command("tune")
@click.argument("config")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True,
    help="auto takes the cpu only where there is no NVIDIA device.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Time and print, and keep nothing.")
@plugin_option
@json_option
def command(
    config: str, overrides: tuple[str, ...], device: str, dry_run: bool, plugin: tuple[str, ...], as_json: bool
) -> None:
    """Find the fastest variant and tiles for each op of CONFIG's training step, by size, on this machine.

    Runs that start here take them where their config names none; a run that is resumed keeps what it had. The table of
    choices says "tuned". Other tiles may give other bits.
    """
    from core.config import load_config
    from core.device import open_device
    from core.graph import load_model
    from core.loader import load_registry
    from core.train.devices import choose_device
    from core.train.setup import build_engine
    from core.train.tune import Timed, save_tuned, tune

    chosen = choose_device(device)
    loaded = load_config(config, overrides=overrides, device=chosen)
    registry = load_registry([*plugin, *loaded.plugins.load], disable=loaded.plugins.disable)
    model, opened = load_model(loaded.model, registry), open_device(chosen)
    found: dict[str, list[Timed]] = {}
    for timed in tune(
        lambda tuned: build_engine(loaded, registry, model, None, opened, tuned=tuned),
        lambda text: click.echo(text, err=True),
    ):
        found.setdefault(timed.key, []).append(timed)
    winners = {key: min(options, key=lambda t: t.seconds).kept for key, options in found.items()}
    rows = [row for key, options in found.items() for row in rows_of(key, options, winners[key])]
    if as_json:
        emit_json({"chip": opened.describe(), "candidates": rows})
    else:
        show(rows)
    if not found:
        raise UsageError("there is nothing to tune: every op of this config has one candidate here")
    if not dry_run:
        try:
            click.echo(f"kept in {save_tuned(opened, winners)}", err=True)
        except OSError as error:
            raise UsageError(f"the winners cannot be kept: {error}", hint="set CORELM_CACHE to a folder") from None


def rows_of(key: str, options: list[Any], winner: Any) -> list[dict[str, Any]]:
    return [
        {
            "what": key,
            "nodes": option.nodes,
            "variant": option.kept.variant,
            "config": option.kept.config,
            "ms": 1e3 * option.seconds,
            "fastest": option.kept == winner,
            "untuned": option.first,
        }
        for option in options
    ]


def show(rows: list[dict[str, Any]]) -> None:
    from core.plan.describe import table

    last = ""
    for row in rows:
        if row["what"] != last:
            last = row["what"]
            same = [r for r in rows if r["what"] == last]
            click.echo(f"\n{last}: {row['nodes']} nodes")
            cells = [[r["variant"], tiles(r["config"]), f"{r['ms']:.3f}", *marks(r)] for r in same]
            for line in table(cells, ("variant", "tiles", "ms", "", "")):
                click.echo(f"  {line}")


def tiles(config: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in config.items())


def marks(row: dict[str, Any]) -> tuple[str, str]:
    return "fastest" if row["fastest"] else "", "untuned" if row["untuned"] else ""
