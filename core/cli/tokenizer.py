"""`core tokenizer`: fetch GPT-2's, train one, and show the tokens of a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.cli.show import emit_json, field_option, json_option, plugin_option, separator_option
from core.errors import UsageError

if TYPE_CHECKING:
    from core.tokenizers.tokenizer import Tokenizer

SPEC_HELP = "gpt2, gpt2:PATH, bpe:PATH (a tokenizer.json or ranks file), bytes, or a kind that a plugin brings."


@click.group("tokenizer")
def command() -> None:
    """Download, train and apply tokenizers."""


@command.command("fetch")
@json_option
def fetch(as_json: bool) -> None:
    """Download GPT-2's tokenizer (456 kB) into the cache, unless this machine has it."""
    from core.tokenizers.gpt2 import cached_file, load_gpt2

    tokenizer = load_gpt2(again=True)
    file = str(cached_file()) if cached_file().is_file() else None
    if as_json:
        emit_json({**tokenizer.record(), "file": file})
    else:
        click.echo(f"gpt2: {tokenizer.vocab_size:,} ids, in {file or 'the cache of tiktoken, or the file you named'}")


@command.command("train")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@field_option
@separator_option
@click.option("--vocab-size", type=click.IntRange(257), default=4096, help="Ids: 256 bytes, end of text, merges.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="A new tokenizer.json.")
@plugin_option
@json_option
def train(
    sources: tuple[str, ...],
    field: str,
    separator: str,
    vocab_size: int,
    out: Path,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a byte-level BPE on text: files, folders, globs, or builtin."""
    from core import atomic_files
    from core.data.data_names import resolve
    from core.data.documents import Reading
    from core.loader import load_registry
    from core.tokenizers.preference import choose_tokenizer

    if out.exists():
        raise UsageError(f"{out} exists; no file was overwritten", hint="choose another --out, or remove it")
    inputs = resolve(sources, "train", "tokenizer train", [], Reading(field, separator), load_registry(plugin).readers)
    if inputs.arrays:
        raise UsageError(f"{sources[0]}: expected text, this is an array", hint="train on text")
    if inputs.shards:
        raise UsageError(
            f"{inputs.shards[0].path}: expected text, this is a token shard", hint="train on the text itself"
        )
    choice = choose_tokenizer(
        ["bpe"], text=lambda: (b for d in inputs.documents for b in d.blocks()), vocab_size=vocab_size
    )
    try:
        atomic_files.replace(out, choice.tokenizer.to_json().encode())
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}", hint="choose another --out") from None
    if as_json:
        emit_json({**choice.tokenizer.record(), "file": str(out)})
    else:
        click.echo(f'{choice.tokenizer.vocab_size:,} ids; in a config:  [data] tokenizer = "bpe:{out.as_posix()}"')


@command.command("encode")
@click.argument("text", default="-")
@click.option("--tokenizer", "spec", default="gpt2", metavar="SPEC", help=SPEC_HELP)
@plugin_option
@json_option
def encode(text: str, spec: str, plugin: tuple[str, ...], as_json: bool) -> None:
    """Print the ids of TEXT, or of the standard input. Special tokens are never read from text."""
    tokenizer = _tokenizer(spec, plugin)
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    ids = tokenizer.encode(text).tolist()
    if as_json:
        emit_json({"tokenizer": tokenizer.record(), "ids": ids, "pieces": [tokenizer.decode([i]) for i in ids]})
    else:
        click.echo(" ".join(str(i) for i in ids))


@command.command("decode")
@click.argument("ids", nargs=-1, type=int)
@click.option("--tokenizer", "spec", default="gpt2", metavar="SPEC", help=SPEC_HELP)
@plugin_option
@json_option
def decode(ids: tuple[int, ...], spec: str, plugin: tuple[str, ...], as_json: bool) -> None:
    """Print the text of IDS, or of the ids on the standard input."""
    tokenizer = _tokenizer(spec, plugin)
    numbers = list(ids) or from_stdin()
    text = tokenizer.decode(numbers)
    if as_json:
        emit_json({"tokenizer": tokenizer.record(), "ids": numbers, "text": text})
    else:
        click.echo(text)


def _tokenizer(spec: str, plugins: tuple[str, ...]) -> Tokenizer:
    from core.loader import load_registry
    from core.tokenizers.preference import choose_tokenizer

    return choose_tokenizer([spec], kinds=load_registry(plugins).tokenizers).tokenizer


def from_stdin() -> list[int]:
    words = sys.stdin.read().split()
    try:
        return [int(word) for word in words]
    except ValueError as error:
        raise UsageError(f"expected ids as whole numbers, got {error}", hint="separate them by blanks") from None
