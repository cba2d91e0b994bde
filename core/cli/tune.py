"""`core tune`: time a config's candidates on this machine, and keep the fastest for its runs here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core import signals
from core.cli.kernel_runs import refuse_untimed, with_architectures
from core.cli.show import device_option, json_option, json_text, plugin_option, set_option
from core.endings import ending
from core.errors import UsageError

if TYPE_CHECKING:
    from core.device.protocol import Device
    from core.devices import DeviceKind
    from core.measure.tune import Timed
    from core.registry import Registry


@click.command("tune")
@click.argument("config")
@set_option
@device_option()
@click.option("--dry-run", is_flag=True, help="Time and print, without saving the result.")
@click.option(
    "--write-defaults", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Also write faster choices into FILE, for this architecture; corelm ships ops/cuda/tuned.toml.",
)  # fmt: skip
@plugin_option
@json_option
def command(
    config: str,
    overrides: tuple[str, ...],
    device: str,
    dry_run: bool,
    write_defaults: Path | None,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the fastest variant and tiles for each op of CONFIG's training step, by size, on this machine.

    New runs on this machine use the result for ops whose variant the config does not name; resumed runs keep their
    choices. A run's table marks these choices "tuned", corelm's own for the architecture "shipped", the default "auto".
    Other tiles may give other bits. Ctrl-C ends tuning after the current round; the timed candidates count.
    """
    from core.config import resolve_config
    from core.graph import load_model
    from core.measure.tune import measured, tune
    from core.train.wiring import build_engine

    loaded, registry = resolve_config(config, overrides=overrides, device=device, plugins=plugin)
    kind = registry.devices[loaded.device]
    check_device(kind, write_defaults, registry)
    model, opened = load_model(loaded.model, registry), kind.open()
    timings: dict[str, list[Timed]] = {}
    stop = signals.Stop("round")

    def text(cut_off: str) -> str:
        cut_off = cut_off or (f"ended by {stop.name}" if stop.requested else "")
        rows = [row for key, options in timings.items() for row in rows_of(key, options, fastest(options))]
        if as_json:
            return json_text({"chip": opened.describe(), "candidates": rows, "cut_off": cut_off})
        return "\n".join([*lines_of(rows), *([f"other candidates not timed: {cut_off}"] if cut_off else [])])

    with ending(text, timings), stop:
        for one in tune(
            lambda tuned: build_engine(loaded, registry, model, None, opened, tuned=tuned),
            lambda text: click.echo(text, err=True),
            lambda: stop.requested,
        ):
            timings.setdefault(one.key, []).append(one)
    winners = {key: fastest(options) for key, options in timings.items()}
    if not timings and not stop.requested:
        raise UsageError("nothing to tune: every op of this config has one candidate on this device")
    if winners and not dry_run:
        save(opened, winners)
    if write_defaults is not None:
        write(write_defaults, measured(opened, timings))
    if stop.requested:
        raise click.exceptions.Exit(stop.exit_code)


def check_device(kind: DeviceKind, file: Path | None, registry: Registry) -> None:
    """UsageError for a device whose time is not real, and for --write-defaults on one without architectures."""
    refuse_untimed(kind)
    if file is not None and kind.planner is None:
        raise UsageError(
            "--write-defaults is for a GPU's architecture", hint=f"tune with {with_architectures(registry)}"
        )


def fastest(options: Sequence[Timed]) -> Any:
    """The choice of the fastest candidate."""
    return min(options, key=lambda t: t.seconds).choice


def save(device: Device, winners: dict[str, Any]) -> None:
    """Keep the winners for later runs on this machine."""
    from core.measure.tune import save_tuned

    try:
        click.echo(f"saved in {save_tuned(device, winners)}", err=True)
    except OSError as error:
        hint = "set CORELM_CACHE to a folder that you may write to"
        raise UsageError(f"the winners cannot be saved: {error}", hint=hint) from None


def write(path: Path, choices: Any) -> None:
    """Write choices that are faster than the best guess into a file of shipped ones."""
    from core.measure.tune import write_choices

    try:
        write_choices(path, choices)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}", hint="name a file in a folder of yours") from None
    click.echo(f"{len(choices)} choices that are faster than the best guess are in {path}", err=True)


def rows_of(key: str, options: list[Any], winner: Any) -> list[dict[str, Any]]:
    return [
        {
            "what": key,
            "nodes": option.nodes,
            "variant": option.choice.variant,
            "config": option.choice.config,
            "ms": 1e3 * option.seconds,
            "fastest": option.choice == winner,
            "first": option.first,
        }
        for option in options
    ]


def lines_of(rows: list[dict[str, Any]]) -> Iterator[str]:
    from core.words import table

    last = ""
    for row in rows:
        if row["what"] != last:
            last = row["what"]
            same = [r for r in rows if r["what"] == last]
            yield f"\n{last}: {row['nodes']} nodes"
            cells = [[r["variant"], tiles(r["config"]), f"{r['ms']:.3f}", *marks(r)] for r in same]
            yield from (f"  {line}" for line in table(("variant", "tiles", "ms", "", ""), cells))


def tiles(config: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in config.items())


def marks(row: dict[str, Any]) -> tuple[str, str]:
    return "fastest" if row["fastest"] else "", "best guess" if row["first"] else ""
