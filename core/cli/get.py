"""`core get`: token shards, weights and files of evaluations that others publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.cli.data import progress_line
from core.cli.show import emit_json, json_option

if TYPE_CHECKING:
    from core.evaluation import Evaluation

EVALUATIONS = "core.evaluations"
SHARDS = 103  # of FineWeb's sample of 10B tokens, 100M tokens each
SIZES = {"124m": "gpt2", "355m": "gpt2-medium", "774m": "gpt2-large", "1558m": "gpt2-xl"}  # as their authors named them

out_option = click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The folder, instead of data/..."
)


class Collections(click.Group):
    """The built-in collections, and the published file of each evaluation."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *published(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.commands.get(cmd_name) or published(ctx).get(cmd_name)


def published(ctx: click.Context) -> dict[str, click.Command]:
    """Commands by name, for the evaluations of shipped and installed plugins that have a `download`."""
    from core.loader import load_registry

    if EVALUATIONS not in ctx.meta:  # once a command line: a help page needs each command
        ctx.meta[EVALUATIONS] = load_registry(strict=False).evaluations
    evaluations: dict[str, Evaluation] = ctx.meta[EVALUATIONS]
    return {name: _fetching(evaluation) for name, evaluation in evaluations.items() if evaluation.download is not None}


def _fetching(evaluation: Evaluation) -> click.Command:
    source, name = evaluation.download, evaluation.name
    assert source is not None

    @click.command(name, help=f"The file of `core eval --{name}`, from {source.repository}.")
    @out_option
    @json_option
    def fetching(out: Path | None, as_json: bool) -> None:
        folder = out or Path("data") / name
        run(source.repository, source.kind, list(source.files), folder, as_json)
        if not as_json:
            click.echo(f"use it:  core eval RUN --{name} {folder.as_posix()}/{source.files[0]}")

    return fetching


@click.group("get", cls=Collections)
def command() -> None:
    """Download token shards and weights from the Hugging Face hub. An interrupted download resumes where it stopped."""


@command.command("fineweb")
@click.option("--shards", type=click.IntRange(1, SHARDS), required=True, help="Shards to train on, 100M tokens each.")
@out_option
@json_option
def fineweb(shards: int, out: Path | None, as_json: bool) -> None:
    """FineWeb's sample of 10B tokens, in GPT-2's tokens: the validation shard and the first training shards."""
    names = ["fineweb_val_000000.bin", *(f"fineweb_train_{number:06d}.bin" for number in range(1, shards + 1))]
    run("kjj0/fineweb10B-gpt2", "dataset", names, out or Path("data/fineweb10B"), as_json)
    if not as_json:
        click.echo("train on it:  core train configs/gpt2_124m_fineweb.toml")


@command.command("gpt2")
@click.option("--size", type=click.Choice(list(SIZES)), default="124m", show_default=True)
@out_option
@json_option
def gpt2(size: str, out: Path | None, as_json: bool) -> None:
    """OpenAI's weights of GPT-2, with their tokenizer: a Hugging Face folder."""
    folder = out or Path("data") / SIZES[size]
    names = ["config.json", "tokenizer.json", "model.safetensors"]
    run(f"openai-community/{SIZES[size]}", "model", names, folder, as_json)
    if not as_json:
        click.echo(f'use it:  core import {folder.as_posix()} OUT, or weights = "{folder.as_posix()}" in a config')


def run(repository: str, kind: str, names: list[str], out: Path, as_json: bool) -> None:
    """Fetch, and list the files that are here now."""
    from core.data.fetch import Collection, fetch

    files = fetch(Collection(repository, kind, tuple(names)), out, progress_line())
    if as_json:
        emit_json([{"file": str(f.path), "bytes": f.size, "new": f.new} for f in files])
        return
    for file in files:
        click.echo(f"{file.path}  {file.size:,} bytes  {'fetched' if file.new else 'was here'}, hash verified")
