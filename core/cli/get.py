"""`core get`: token shards, weights and questions that others publish."""

from __future__ import annotations

from pathlib import Path

import click

from core.cli.data import progress_line
from core.cli.show import emit_json, json_option

SHARDS = 103  # of FineWeb's sample of 10B tokens, 100M tokens each
SIZES = {"124m": "gpt2", "355m": "gpt2-medium", "774m": "gpt2-large", "1558m": "gpt2-xl"}  # as their authors named them

out_option = click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to, instead of data/...")


@click.group("get")
def command() -> None:
    """Fetch token shards and weights from the Hugging Face hub. What was broken off goes on where it stopped."""


@command.command("fineweb")
@click.option("--shards", type=click.IntRange(1, SHARDS), required=True, help="Shards to train on, 100M tokens each.")
@out_option
@json_option
def fineweb(shards: int, out: Path | None, as_json: bool) -> None:
    """FineWeb's sample of 10B tokens, in GPT-2's tokens: the validation shard and the first so many to train on."""
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


@command.command("hellaswag")
@out_option
@json_option
def hellaswag(out: Path | None, as_json: bool) -> None:
    """HellaSwag's questions in GPT-2's tokens, as llm.c has them."""
    folder = out or Path("data/hellaswag")
    run("karpathy/llmc-starter-pack", "dataset", ["hellaswag_val.bin"], folder, as_json)
    if not as_json:
        click.echo(f"use it:  core eval RUN --hellaswag {folder.as_posix()}/hellaswag_val.bin")


def run(repository: str, kind: str, names: list[str], out: Path, as_json: bool) -> None:
    """Fetch, and say what is here now."""
    from core.data.fetch import Collection, fetch

    found = fetch(Collection(repository, kind, tuple(names)), out, progress_line())
    if as_json:
        emit_json([{"file": str(f.path), "bytes": f.size, "new": f.new} for f in found])
        return
    for file in found:
        click.echo(f"{file.path}  {file.size:,} bytes  {'fetched' if file.new else 'was here'}, hash verified")
