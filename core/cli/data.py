"""`core data`: make token shards, look at them, and check that nothing has changed in them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from core.cli.data_inspect import inspect
from core.cli.show import emit_json, field_option, json_option, json_text, plugin_option, separator_option
from core.endings import ending
from core.errors import CheckFailed, DataError
from core.train.display import Display
from core.words import table

Progress = Callable[[int, int, str], None]


@click.group("data")
def command() -> None:
    """Prepare, inspect and verify training data."""


command.add_command(inspect)


@command.command("prepare")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder for the shards.")
@click.option("--split", type=click.Choice(["train", "val"]), default="train", help="Part of the shards' name.")
@click.option("--name", metavar="NAME", help="First part of the shards' name.  [default: the folder's name]")
@click.option(
    "--tokenizer",
    multiple=True,
    metavar="SPEC",
    help="gpt2, gpt2:PATH, bpe, bpe:PATH or bytes; several in order of preference.  [default: DIR's, else gpt2, bpe]",
)
@click.option("--vocab-size", type=click.IntRange(257), default=4096, help="Vocabulary size of a new bpe.")
@field_option
@separator_option
@click.option("--raw", type=click.Choice(["uint16", "uint32"]), help="SOURCE has ids of this type alone, as nanoGPT's.")
@click.option("--shard-tokens", type=click.IntRange(1, 2**31 - 1), default=100_000_000, help="Tokens of one shard.")
@plugin_option
@json_option
def prepare(
    sources: tuple[str, ...],
    out: Path,
    split: str,
    name: str | None,
    tokenizer: tuple[str, ...],
    vocab_size: int,
    field: str,
    separator: str,
    raw: str | None,
    shard_tokens: int,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write text (files, folders, globs, or builtin) as token shards with hashes beside them.

    Each file is a document, or holds several: a line of JSON each (--field), or with a --separator between them. A
    document starts with the end-of-text token; another program's tokenizer has ids of its own for both ends.
    """
    from core.data.convert import raw_to_shards, text_to_shards
    from core.data.documents import Reading
    from core.loader import load_registry

    progress, registry = progress_line(), load_registry(plugin)
    if raw is not None:
        written = raw_to_shards(sources, out, raw, split=split, name=name, shard_tokens=shard_tokens, progress=progress)
    else:
        written = text_to_shards(
            sources,
            out,
            split=split,
            name=name,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            shard_tokens=shard_tokens,
            progress=progress,
            reading=Reading(field, separator),
            kinds=registry.tokenizers,
            readers=registry.readers,
        )
    record = written.tokenizer.record() if written.tokenizer else None
    if as_json:
        shards = [str(path) for path in written.paths]
        emit_json({"shards": shards, "tokens": written.tokens, "tokenizer": record, "notes": written.notes})
        return
    for note in written.notes:
        click.echo(note)
    stem = written.paths[0].name.removesuffix("_000000.bin") if written.paths else ""
    click.echo(f"{written.tokens:,} tokens in {len(written.paths)} shards")
    click.echo(f'in a config:  [data] {split} = "{(out / stem).as_posix()}_*.bin"')


@command.command("verify")
@click.argument("sources", nargs=-1, required=True, metavar="SHARD...")
@json_option
def verify(sources: tuple[str, ...], as_json: bool) -> None:
    """Compare shards with the hashes beside them (SHARD.sha256); exit 1 if one has changed."""
    from core.data.data_names import expand

    paths = [path for source in sources for path in expand(source, "data verify")]
    results: list[dict[str, Any]] = []

    def text(cut_off: str) -> str:
        rest = [{"file": str(path), "result": "not verified", "error": None} for path in paths[len(results) :]]
        rows = [*(row | {"cut_off": ""} for row in results), *(row | {"cut_off": cut_off} for row in rest)]
        if as_json:
            return json_text(rows)
        cells = [(r["file"], r["error"] or ": ".join(filter(None, (r["result"], r["cut_off"])))) for r in rows]
        return "\n".join(table(("SHARD", "RESULT"), cells))

    with ending(text, results):
        for path in paths:
            results.append(verify_one(path))
    bad = [r for r in results if r["result"] == "failed"]
    if bad:
        raise CheckFailed(
            f"{len(bad)} of {len(results)} shards differ from their hashes", hint="fetch or write them again"
        )
    if all(r["result"] == "no hash" for r in results):
        raise CheckFailed(
            "no shard has a hash file beside it, so no hash was compared", hint="sha256sum SHARD > SHARD.sha256"
        )


def verify_one(path: Path) -> dict[str, Any]:
    from core.data.shards import open_shard, verify_shard

    try:
        open_shard(path)
        result, error = "verified" if verify_shard(path, always=True) else "no hash", None
    except DataError as failed:
        result, error = "failed", failed.message
    return {"file": str(path), "result": result, "error": error}


def progress_line() -> Progress | None:
    """A line on stderr that is redrawn, where stderr is a terminal."""
    if not sys.stderr.isatty():
        return None

    display = Display(sys.stderr)

    def draw(done: int, total: int, label: str) -> None:
        display.status(f"{label[:50]:50} {100 * done // max(1, total):3d}%")
        if done >= total:
            display.close()

    return draw
