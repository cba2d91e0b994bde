"""`core sample`: text from a run's newest checkpoint, or from the one that is named."""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
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
@click.option("--prompt", "prompts", multiple=True, help="What the text continues; without one, a document begins.")
@click.option("--tokens", type=click.IntRange(1), default=64, show_default=True, help="New tokens, at most.")
@click.option("--temperature", type=float, default=0.8, show_default=True, help="0 takes the likeliest token.")
@click.option("--top-k", type=int, default=0, show_default=True, help="Draw from the k likeliest tokens; 0: from all.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Draw from the fewest with this probability.")
@click.option("--repetition-penalty", type=float, default=1.0, show_default=True, help="Above 1: fewer repeats.")
@click.option("--stop", "stops", multiple=True, help="End before this text, too; may be repeated.")
@click.option("--seed", type=click.IntRange(0), help="The same seed draws the same text; without one it is new.")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu", "sim"]), default="auto", show_default=True)
@plugin_option
@json_option
def command(
    run: str | None,
    prompts: tuple[str, ...],
    tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    stops: tuple[str, ...],
    seed: int | None,
    device: str,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Generate text from RUN: a run's folder or a checkpoint's, a name under runs/, or nothing for the newest run.

    It ends after --tokens tokens, where the model ends its document, or before a --stop text. Several --prompt are
    continued side by side, and printed one after the other when all are done.
    """
    from core.generate import Sampling, generate_steps, prompt_ids
    from core.interop import checkpoint
    from core.train.run import find_run

    seed = secrets.randbits(32) if seed is None else seed
    sampling = Sampling(temperature, top_k, seed, top_p, repetition_penalty)
    found = checkpoint.find(find_run(run))
    tokenizer = tokenizer_of(found)
    engine = open_engine(found, device, plugin)
    texts = prompts or ("",)
    ids = [prompt_ids(tokenizer, prompt) for prompt in texts]
    session = engine.session(len(ids))
    count = max(1, min(tokens, session.room + 1 - max(map(len, ids))))
    if count < tokens:
        click.echo(f"the model holds {session.room} tokens: {count} new ones instead of {tokens}", err=True)
    live = len(ids) == 1 and not as_json
    rows = [Continuation(tokenizer, stops, prompt, show if live else silent) for prompt in texts]
    for drawn in generate_steps(session, ids, count, sampling, tokenizer.vocab_size):
        for row, token in zip(rows, drawn.tolist(), strict=True):
            row.token(token)
        if all(row.ended for row in rows):
            break
    for row in rows:
        row.end()
    if as_json:
        pairs = zip(texts, ids, rows, strict=True)
        shown = [{"prompt": p, "text": p + row.text, "tokens": [*i, *row.tokens]} for p, i, row in pairs]
        first = shown[0] if len(shown) == 1 else {"samples": shown}
        emit_json({"checkpoint": str(found.path), "step": found.step, **first, **asdict(sampling)})
        return
    for prompt, row in zip(texts, rows, strict=True):
        if not live:
            show(f"--- {prompt}{row.text}")
        click.echo()
    click.echo(f"({found.path}, seed {seed})", err=True)


def show(text: str) -> None:
    from core.train.report import printable

    click.echo(printable(text), nl=False)


def silent(text: str) -> None:
    """What is printed of a text that is not shown while it grows."""


def tokenizer_of(found: Checkpoint) -> Tokenizer:
    """The tokenizer that lies in the checkpoint."""
    from core.data import Tokenizer
    from core.interop.checkpoint import TOKENIZER

    if found.tokenizer_json is None:
        raise CheckpointError(
            f"{found.path} holds no tokenizer: what it was trained on, or imported from, came without one",
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


class Continuation:
    """The text behind a prompt as it grows: `tokens` and `text` so far, `ended` when it goes no further.

    `show` gets the prompt, then pieces of the text as soon as they are certain: a character's bytes may come in several
    tokens, and what may become one of `stops` is held back. A stop, and the end-of-text token, are left out.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], prompt: str, show: Callable[[str], None]) -> None:
        self._tokenizer, self._stops, self._show = tokenizer, [s for s in stops if s], show
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # text that may be the begin of a stop
        self.tokens: list[int] = []
        self.text, self.ended = "", False
        if prompt:
            show(prompt)

    def token(self, token: int) -> None:
        if self.ended:
            return
        if token == self._tokenizer.eot:
            self.end()
            return
        self.tokens.append(token)
        self._add(self._decoder.decode(self._tokenizer.decode_bytes([token])))

    def _add(self, text: str) -> None:
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self._held, self.ended = "", True
            self._give(text[: min(found)])
            return
        most = max((len(stop) - 1 for stop in self._stops), default=0)
        begins = (n for n in range(min(most, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in self._stops))
        held = next(begins, 0)
        self._held = text[len(text) - held :]
        self._give(text[: len(text) - held])

    def _give(self, text: str) -> None:
        self.text += text
        if text:
            self._show(text)

    def end(self) -> None:
        """Nothing comes any more: what was held back is text."""
        if not self.ended:
            self.ended = True
            self._give(self._held + self._decoder.decode(b"", final=True))
