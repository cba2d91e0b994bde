"""`core sample`: text from a model: a run's newest checkpoint, or another file or folder of weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from core.cli.generation import drawing_options, open_text_model
from core.cli.show import emit_json, json_option, plugin_option

if TYPE_CHECKING:
    from core.generate import Sampling


@click.command("sample")
@click.argument("run", required=False)
@click.option("--prompt", "prompts", multiple=True, help="Text to continue; without a prompt, a new document starts.")
@drawing_options(tokens=64)
@plugin_option
@json_option
def command(
    run: str | None,
    prompts: tuple[str, ...],
    tokens: int,
    sampling: Sampling,
    stops: tuple[str, ...],
    device: str,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Generate text from RUN: a run's folder or a checkpoint's, RUN/BEST for the best by validation, a name under
    runs/, a Hugging Face folder, or nothing for the newest run.

    Generation ends after --tokens tokens, at the end of a document, or before a --stop text. Several --prompt form one
    batch, printed in order at the end.
    """
    from core.generate import Continuation, generate_steps, prompt_ids

    opened, model, tokenizer = open_text_model(run, device, plugin)
    texts = prompts or ("",)
    ids = [prompt_ids(tokenizer, prompt) for prompt in texts]
    longest = max(map(len, ids))
    needed = longest + tokens - 1  # the last one is not fed
    session = model.engine.session(len(ids), min(needed, int(model.graph.dims.get("S", needed))))
    count = max(1, min(tokens, session.room + 1 - longest))
    if count < tokens:
        click.echo(f"the model holds {session.room} tokens: {count} new tokens instead of {tokens}", err=True)
    live = len(ids) == 1 and not as_json
    ends = opened.generation.ends
    rows = [Continuation(tokenizer, stops, prompt, show if live else silent, ends) for prompt in texts]
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
        emit_json({"checkpoint": str(opened.path), "step": opened.step, **first, **asdict(sampling)})
        return
    for prompt, row in zip(texts, rows, strict=True):
        if not live:
            show(f"--- {prompt}{row.text}")
        click.echo()
    click.echo(f"({opened.path}, seed {sampling.seed})", err=True)


def show(text: str) -> None:
    from core.words import printable

    click.echo(printable(text), nl=False)


def silent(text: str) -> None:
    """The printed form of a text that is not streamed."""
