"""`core export`: a model for other programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.cli.show import emit_json, json_option, plugin_option

if TYPE_CHECKING:
    from core.interop.opened import Opened

# Of what is made without --out.
SUFFIX = {
    "hf": "-hf",
    "llmc": ".bin",
    "llama2c": ".bin",
    "llama2c-v1": ".bin",
}


@click.command("export")
@click.argument("run", required=False)
@click.option(
    "--to",
    "to",
    type=click.Choice(list(SUFFIX)),
    required=True,
    help="For transformers, llm.c or llama2.c.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="A new folder or file; RUN's name here without this option."
)
@click.option("--precision", type=click.Choice(["f32", "bf16"]), default="f32", show_default=True)
@plugin_option
@json_option
def command(run: str | None, to: str, out: Path | None, precision: str, plugin: tuple[str, ...], as_json: bool) -> None:
    """Write the model of RUN for Hugging Face's transformers (--to hf), llm.c (--to llmc) or llama2.c
    (--to llama2c, which its run.c reads).

    RUN is a run's or checkpoint's folder, a name under runs/, or nothing for the newest run; a Hugging Face folder or
    an llm.c file too, so that one becomes the other.
    """
    from core.interop import export_huggingface, export_llama2c, export_llmc
    from core.interop.export import prepare
    from core.interop.opened import open_path
    from core.loader import load_registry
    from core.outputs import new_path
    from core.train.run import find_run

    path = find_run(run)
    out = new_path(out or Path(path.resolve().name.removesuffix(".bin") + SUFFIX[to]))
    registry = load_registry(plugin)
    opened = open_path(path, registry)
    extra, ids, note = _tokenizer(opened) if to == "hf" else ({}, {}, "")
    export = prepare(opened, registry, precision, extra, ids)
    writers: dict[str, Callable[..., None]] = {
        "hf": export_huggingface.write,
        "llmc": export_llmc.write,
        "llama2c": export_llama2c.write,
        "llama2c-v1": functools.partial(export_llama2c.write, version=1),
    }
    writers[to](export, registry, out)
    note = note or (_scored_beside(opened, out) if to in ("llama2c", "llama2c-v1") else "")
    graph = export.graph
    if as_json:
        step = {"step": opened.step} if opened.tokenizer_json or opened.step else {}
        emit_json({"from": str(opened.path), **step, "out": str(out), "model": graph.name, "precision": precision})
        return
    click.echo(f"{out}: {graph.name}, {graph.parameter_count:,} parameters in {precision}, from {opened.path}")
    if note:
        click.echo(note)


def _scored_beside(opened: Opened, out: Path) -> str:
    """Write llama2.c's tokenizer.bin beside its model file, where there is none; what to say about it."""
    from core import files
    from core.data.scored import FILE, ScoredTokenizer, scored_of
    from core.errors import DataError
    from core.train.tokenizers import tokenizer_of

    tokenizer, beside = tokenizer_of(opened), out.parent / FILE
    if tokenizer is None:
        return f"without a {FILE}: the model has no tokenizer"
    if not isinstance(tokenizer, ScoredTokenizer):
        try:
            tokenizer = scored_of(tokenizer)
        except DataError as error:
            way = "llama2.c's tokenizer.py writes one from the model's tokenizer.model"
            return f"without a {FILE}: {error.message}; {way}"
    if beside.exists() and not _holds(beside, tokenizer.to_bytes()):
        return f"{beside} belongs to a different tokenizer and was kept: pass the model's own to run.c with -z"
    files.replace(beside, tokenizer.to_bytes())
    return f"with {beside}"


def _tokenizer(opened: Opened) -> tuple[dict[str, bytes], dict[str, int], str]:
    """The tokenizer's files, the ids of its begin and end of text, and what to say about it."""
    from core.data.huggingface import FILE, write_files
    from core.errors import DataError
    from core.train.tokenizers import tokenizer_of

    tokenizer = tokenizer_of(opened)
    if tokenizer is None:
        return {}, {}, "without a tokenizer: the model has none"
    ends = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eot}
    ids = {key: value for key, value in ends.items() if value is not None}
    longest: Any = opened.source.document.get("dims", {}).get("S")
    try:
        return write_files(tokenizer, longest if isinstance(longest, int) else None), ids, f"with {FILE}"
    except DataError as error:
        return {}, ids, f"without a tokenizer: {error.message}"


def _holds(path: Path, data: bytes) -> bool:
    from core.outside import read_whole

    try:
        return read_whole(path) == data
    except OSError:
        return False
