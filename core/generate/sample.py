"""Tokens from logits, and generation through a decode session that keeps keys and values.

It knows no tokenizer: prompts are token ids, and so is what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from core.errors import NumericsError, UsageError

Array = np.ndarray[Any, Any]


class Text(Protocol):
    """What a prompt needs of a tokenizer."""

    @property
    def eot(self) -> int | None: ...

    def encode(self, text: str) -> Array: ...


class Session(Protocol):
    """What `generate` needs of a decode session: `feed` appends tokens and gives the logits behind the last ones."""

    @property
    def room(self) -> int: ...

    def feed(self, tokens: Array, counts: Array | None = None) -> Array: ...


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature 0 takes the most likely one; top_k 0 draws from all; one seed, one text."""

    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"temperature is {self.temperature}; expected a number >= 0 (0: the most likely token)")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}; expected a count >= 0 (0: all tokens)")


def prompt_ids(tokenizer: Text, prompt: str) -> list[int]:
    """The ids of a prompt; of an empty one, the id that begins a document."""
    ids = [int(i) for i in tokenizer.encode(prompt)]
    return ids or [tokenizer.eot if tokenizer.eot is not None else 0]


def sample_logits(logits: Array, temperature: float, top_k: int, rng: np.random.Generator) -> Array:
    """One token a row, (B,) i32, from logits (B, V): softmax(logits / temperature) over the top_k largest.

    temperature 0 is argmax. Of equal logits the lower ids count as larger. One uniform number is drawn per row, so
    that a row's draw does not depend on V. Raises NumericsError when a row has no finite largest logit.
    """
    values = np.asarray(logits, np.float64)
    largest = values.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():  # a nan in a row makes its largest nan
        raise NumericsError("logits are not finite: there is nothing to sample from", hint="is the checkpoint sound?")
    if temperature == 0:
        likeliest: Array = np.argmax(values, axis=-1).astype(np.int32)
        return likeliest
    ids = None
    if 0 < top_k < values.shape[-1]:
        ids = np.argsort(-values, axis=-1, kind="stable")[:, :top_k]
        values = np.take_along_axis(values, ids, axis=-1)
    weights = np.exp((values - largest) / temperature)
    cumulative = np.cumsum(weights, axis=-1)
    drawn = rng.random((len(values), 1)) * cumulative[:, -1:]
    index = (cumulative <= drawn).sum(axis=-1, keepdims=True)
    index = np.minimum(index, values.shape[-1] - 1)  # rounding may put the draw on the very end
    picked = index if ids is None else np.take_along_axis(ids, index, axis=-1)
    ids_drawn: Array = picked[:, 0].astype(np.int32)
    return ids_drawn


def generate_steps(
    session: Session, prompts: Sequence[Sequence[int]], tokens: int, sampling: Sampling, vocabulary: int | None = None
) -> Iterator[Array]:
    """`tokens` times the next token of every prompt, (B,) i32, drawn as `sampling` says.

    prompts: one sequence of ids a row of the session, of any lengths from 1. vocabulary: ids from there on are
    padding or mean nothing to the tokenizer, and are never drawn. Raises UsageError when prompt and continuation
    do not fit into the session.
    """
    counts = np.array([len(prompt) for prompt in prompts], np.int32)
    if not len(counts) or counts.min() < 1:
        raise UsageError("a prompt has no tokens", hint="begin with the end-of-text token where there is nothing else")
    if tokens < 1:
        return
    longest = int(counts.max())
    if longest + tokens - 1 > session.room:
        raise UsageError(
            f"a prompt of {longest} tokens and {tokens} new ones do not fit: there is room for {session.room + 1}",
            hint="ask for fewer tokens or shorten the prompt",
        )
    padded = np.zeros((len(prompts), longest), np.int32)
    for row, prompt in enumerate(prompts):
        padded[row, : len(prompt)] = prompt
    rng = np.random.default_rng(sampling.seed)
    logits = session.feed(padded, counts)
    for left in range(tokens - 1, -1, -1):
        drawn = sample_logits(logits[:, :vocabulary], sampling.temperature, sampling.top_k, rng)
        yield drawn
        if left:
            logits = session.feed(drawn[:, None])


def generate(
    session: Session,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling = Sampling(),
    *,
    vocabulary: int | None = None,
    stop: int | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """The continuations of `prompts`, without the prompts: up to `tokens` ids each, ended by the token `stop`, which
    is left out. `cancelled()` is asked between tokens. Otherwise as `generate_steps`.
    """
    found: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(found)))
    for drawn in generate_steps(session, prompts, tokens, sampling, vocabulary):
        for row in sorted(open_rows):
            if int(drawn[row]) == stop:
                open_rows.discard(row)
            else:
                found[row].append(int(drawn[row]))
        if not open_rows or cancelled():
            break
    return found
