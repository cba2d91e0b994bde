"""`core import`: another program's model as a checkpoint of corelm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.cli.show import emit_json, json_option, plugin_option

if TYPE_CHECKING:
    from core.interop.opened import Opened
    from core.registry import Registry
    from core.tokenizers.tokenizer import Tokenizer

USUAL = "gpt2"  # the tokenizer of files without one, where the vocabulary is its own


@click.command("import")
@click.argument("source", metavar="SRC")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer",
    metavar="SPEC",
    help="A tokenizer.json, gpt2, gpt2:PATH, bpe:PATH or bytes.  [default: SRC's own]",
)
@plugin_option
@json_option
def command(source: str, out: Path, tokenizer: str | None, plugin: tuple[str, ...], as_json: bool) -> None:
    """Convert SRC, another program's files such as a Hugging Face folder or an llm.c model file, to the checkpoint OUT.

    `weights = "OUT"` in a config starts a run from it; `core sample OUT` and `core.load("OUT")` read it directly.
    """
    from core.interop.import_ import import_model
    from core.interop.opened import open_path
    from core.loader import load_registry
    from core.outputs import new_path

    new_path(out)  # before anything is read
    registry = load_registry(plugin)
    opened = open_path(source, registry)
    chosen, why = _tokenizer(opened, tokenizer, registry)
    graph = import_model(opened, registry, out, chosen.to_json() if chosen else None)
    if as_json:
        record = chosen.record() if chosen else None
        emit_json({"out": str(out), "model": graph.name, "parameters": graph.parameter_count, "tokenizer": record})
        return
    click.echo(f"{out}: {graph.name}, {graph.parameter_count:,} parameters, from {opened.kind}")
    click.echo(f"tokenizer: {why}")
    click.echo(f'in a config:  model = "{out.as_posix()}/model.toml"  weights = "{out.as_posix()}"')


def _tokenizer(opened: Opened, spec: str | None, registry: Registry) -> tuple[Tokenizer | None, str]:
    """The tokenizer of the checkpoint, and the reason for its choice or for its absence."""
    from core.errors import DataError
    from core.tokenizers.preference import choose_tokenizer
    from core.train.tokenizers import other_tokenizer, tokenizer_of

    vocabulary = int(opened.dims["V"]) if "V" in opened.dims else None
    if spec is not None:
        choice = choose_tokenizer([spec], max_vocab=vocabulary, where="--tokenizer", kinds=registry.tokenizers)
        return choice.tokenizer, choice.why
    own = tokenizer_of(opened, registry.tokenizers)
    if own is not None:
        without = (
            "" if own.eot is not None else "; it has no end-of-text token, so generation never stops before its limit"
        )
        return own, f"{own.name}, {own.vocab_size:,} ids, from the source folder{without}"
    if others := other_tokenizer(opened):
        return None, f"none: {others}"
    try:
        usual = choose_tokenizer([USUAL], offline=True, kinds=registry.tokenizers)
        if usual.tokenizer.vocab_size == vocabulary:
            return usual.tokenizer, usual.why
    except DataError:
        pass  # not on this machine: nothing is downloaded for a guess
    return None, "the source has none; --tokenizer FILE adds the tokenizer.json of the model, which `core sample` needs"
