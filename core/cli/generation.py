"""Shared by `core sample` and `core chat`: the options of sampling, and a model with its tokenizer."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from core.cli.show import device_option
from core.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from core.api import Model
    from core.interop.opened import Opened
    from core.tokenizers.tokenizer import Tokenizer

OPTIONS = (
    click.option("--temperature", type=float, default=0.8, show_default=True, help="0 selects the most likely token."),
    click.option(
        "--top-k", type=int, default=0, show_default=True, help="Sample from the k most likely tokens; 0: from all."
    ),
    click.option(
        "--top-p",
        type=float,
        default=1.0,
        show_default=True,
        help="Sample from the fewest tokens with this total probability.",
    ),
    click.option(
        "--repetition-penalty", type=float, default=1.0, show_default=True, help="Values above 1 reduce repeats."
    ),
    click.option("--stop", "stops", multiple=True, help="Stop before this text; repeatable."),
    click.option("--seed", type=click.IntRange(0), help="Seed of sampling.  [default: random]"),
    device_option(),
)


def drawing_options(tokens: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options, as the arguments `tokens`, `sampling`, `stops` and `device`; `tokens` is the default of --tokens."""
    most = click.option(
        "--tokens", type=click.IntRange(1), default=tokens, show_default=True, help="Maximum number of new tokens."
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def settled(
            temperature: float, top_k: int, top_p: float, repetition_penalty: float, seed: int | None, **others: Any
        ) -> Any:
            from core.generate import Sampling

            drawn_from = secrets.randbits(32) if seed is None else seed
            sampling = Sampling(temperature, top_k, drawn_from, top_p, repetition_penalty)
            return command(sampling=sampling, **others)

        return functools.reduce(lambda made, option: option(made), reversed([most, *OPTIONS]), settled)

    return decorate


def open_text_model(run: str | None, device: str, plugins: Sequence[str]) -> tuple[Opened, Model, Tokenizer]:
    """RUN as the command line has it, on a device, as it generates; and its tokenizer.

    RUN is as in `core.load`, a name under runs/, or nothing for the newest run. CheckpointError for a model that
    came without a tokenizer, UsageError for one without weights.
    """
    from core.api import build_model
    from core.interop.opened import open_path
    from core.loader import load_registry
    from core.train.run_names import find_run
    from core.train.tokenizers import other_tokenizer

    registry = load_registry(plugins)
    path = find_run(run)  # a name is a run's, also where a model is called so: a model has no weights
    opened = open_path(path, registry)
    if opened.weights is None:
        raise UsageError(
            f"{path}: the model has no weights, so it cannot generate text", hint="name a run, or train it first"
        )
    model = build_model(opened, registry, device, fuse=True)
    if model.tokenizer is None:
        why = other_tokenizer(opened) or "neither its training data nor its source has one"
        raise CheckpointError(
            f"{opened.path} has no known tokenizer: {why}",
            hint="core import SRC OUT --tokenizer FILE adds the model's tokenizer.json; "
            "core.load(PATH).generate(tokens) takes token ids",
        )
    return opened, model, model.tokenizer
