"""`core sample`: text from a run's newest checkpoint, or from the one that is named."""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.cli.show import emit_json, json_option, plugin_option
from core.errors import CheckpointError

if TYPE_CHECKING:
    from core.data import Tokenizer
    from core.engine import Engine
    from core.interop.checkpoint import Checkpoint


@click.command("sample")
@click.argument("run", required=False)
@click.option("--prompt", default="", help="What the text continues; without one, a document begins.")
@click.option("--tokens", type=click.IntRange(1), default=64, show_default=True, help="New tokens, at most.")
@click.option("--temperature", type=float, default=0.8, show_default=True, help="0 takes the likeliest token.")
@click.option("--top-k", type=int, default=0, show_default=True, help="Draw from the k likeliest tokens; 0: from all.")
@click.option("--seed", type=click.IntRange(0), help="The same seed draws the same text; without one it is new.")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu", "sim"]), default="auto", show_default=True)
@plugin_option
@json_option
def command(
    run: str | None,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int,
    seed: int | None,
    device: str,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Generate text from RUN: a run's folder or a checkpoint's, a name under runs/, or nothing for the newest run.

    It ends after --tokens tokens or where the model ends its document.
    """
    from core.generate import Sampling, generate_steps, prompt_ids
    from core.interop import checkpoint
    from core.train.run import find_run

    sampling = Sampling(temperature, top_k, secrets.randbits(32) if seed is None else seed)
    found = checkpoint.find(find_run(run))
    tokenizer = tokenizer_of(found)
    engine = open_engine(found, device, plugin)
    ids = prompt_ids(tokenizer, prompt)
    session = engine.session(1)
    count = max(1, min(tokens, session.room + 1 - len(ids)))
    if count < tokens:
        click.echo(f"the model holds {session.room} tokens: {count} new ones instead of {tokens}", err=True)
    printer = Printer(tokenizer, silent=as_json)
    printer.text(prompt)
    new: list[int] = []
    for drawn in generate_steps(session, [ids], count, sampling, tokenizer.vocab_size):
        if int(drawn[0]) == tokenizer.eot:
            break
        new.append(int(drawn[0]))
        printer.token(new[-1])
    printer.end()
    if as_json:
        emit_json(
            {
                "checkpoint": str(found.path),
                "step": found.step,
                "prompt": prompt,
                "text": prompt + tokenizer.decode(new),
                "tokens": [*ids, *new],
                "temperature": temperature,
                "top_k": top_k,
                "seed": sampling.seed,
            }
        )
    else:
        click.echo(f"({found.path}, seed {sampling.seed})", err=True)


def tokenizer_of(found: Checkpoint) -> Tokenizer:
    """The tokenizer that lies in the checkpoint."""
    from core.data import Tokenizer
    from core.interop.checkpoint import TOKENIZER

    if found.tokenizer_json is None:
        raise CheckpointError(
            f"{found.path} holds no tokenizer: its run's token shards came without one",
            hint="core.load(PATH).generate(tokens) in Python takes and gives token ids",
        )
    return Tokenizer.from_json(found.tokenizer_json, str(found.path / TOKENIZER))


def open_engine(found: Checkpoint, device: str, plugins: Sequence[str]) -> Engine:
    """The checkpoint's model on a device, with the variants that its run recorded, without an optimizer."""
    from core.engine import Engine, Settings
    from core.errors import BuildError
    from core.graph import load_model
    from core.interop.checkpoint import MODEL_TOML
    from core.loader import load_registry
    from core.train.devices import choose_device

    registry = load_registry(plugins)
    settings: dict[str, Any] = {"device": choose_device(device), "recorded": found.state.get("variants", {})}
    engine = Engine(load_model(Path(found.path / MODEL_TOML), registry), registry, Settings(**settings))
    try:
        engine.load_parameters(found.parameters)
    except BuildError as error:
        raise CheckpointError(f"{found.path}: does not fit its own model: {error.message}", hint=error.hint) from None
    return engine


class Printer:
    """Prints text as it is drawn: a character's bytes may come in several tokens."""

    def __init__(self, tokenizer: Tokenizer, silent: bool) -> None:
        self._tokenizer, self._silent = tokenizer, silent
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def token(self, token: int) -> None:
        self.text(self._decoder.decode(self._tokenizer.decode_bytes([token])))

    def text(self, text: str) -> None:
        from core.train.report import printable

        if not self._silent and text:
            click.echo(printable(text), nl=False)

    def end(self) -> None:
        self.text(self._decoder.decode(b"", final=True))
        if not self._silent:
            click.echo()
