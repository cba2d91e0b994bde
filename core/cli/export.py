"""`core export`: a model for other programs, in a format that a plugin brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.cli.brought import BroughtCommand, registry_of
from core.cli.show import emit_json, json_option, plugin_option
from core.errors import UsageError

if TYPE_CHECKING:
    from core.registry import Registry
    from core.weight_format import WeightFormat


class ExportCommand(BroughtCommand):
    """`core export`, whose `--to` has the targets of the formats that the line's plugins bring."""

    def with_brought(self, own: list[click.Parameter], registry: Registry) -> list[click.Parameter]:
        for option in own:
            if option.name == "to":
                option.type = click.Choice(list(targets(registry)))
        return own


def targets(registry: Registry) -> dict[str, WeightFormat]:
    """Value of --to -> the format that writes it, formats in the order in which their plugins load."""
    return {name: one for one in registry.formats.values() for name in one.targets}


@click.command("export", cls=ExportCommand)
@click.argument("run", required=False)
@click.option("--to", "to", required=True, help="The format: hf for transformers, llmc and llama2c, or a plugin's.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A new folder or file.  [default: RUN's name, in the current folder]"
)
@click.option("--precision", type=click.Choice(["f32", "bf16", "fp16"]), default="f32", show_default=True)
@plugin_option
@json_option
def command(run: str | None, to: str, out: Path | None, precision: str, plugin: tuple[str, ...], as_json: bool) -> None:
    """Convert the model of RUN for another program: Hugging Face's transformers (--to hf), llm.c (--to llmc), llama2.c
    (--to llama2c, which its run.c reads), or a program of a plugin's format.

    RUN is a run's or checkpoint's folder, a name under runs/, another program's files, or nothing for the newest run.
    """
    from core.interop.export import prepare
    from core.interop.opened import open_path
    from core.interop.weights import of_format
    from core.outputs import new_path
    from core.train.run_names import find_run
    from core.train.tokenizers import tokenizer_of

    registry = registry_of(click.get_current_context())
    one = targets(registry)[to]
    if precision not in one.precisions:
        has = " or ".join(one.precisions)
        raise UsageError(f"{one.kind} holds {has}, not {precision}", hint=f"--precision {one.precisions[0]}")
    path = find_run(run)
    out = new_path(out or Path(path.resolve().name.removesuffix(".bin") + one.targets[to]))
    opened = open_path(path, registry)
    export = prepare(opened, registry, precision, lambda: tokenizer_of(opened, registry.tokenizers))
    note = of_format(one, lambda: one.write(export, registry, out, to))
    graph = export.graph
    if as_json:
        step = {"step": opened.step} if opened.tokenizer_json or opened.step else {}
        emit_json({"from": str(opened.path), **step, "out": str(out), "model": graph.name, "precision": precision})
        return
    click.echo(f"{out}: {graph.name}, {graph.parameter_count:,} parameters in {precision}, from {opened.path}")
    if note:
        click.echo(note)
