"""Tokens from logits, and generation through a decode session that keeps keys and values.

It knows no tokenizer: prompts and results are token ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import NumericsError, UsageError

if TYPE_CHECKING:
    from core.engine.decode import DecodeSession
    from core.tokenizers.tokenizer import Tokenizer

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sampling:
    """The settings of sampling. The same seed draws the same text.

    In this order: repetition_penalty, which divides the positive logits of tokens that the sequence holds already and
    multiplies the negative ones (arXiv:1909.05858); temperature, of which 0 takes the likeliest token; top_k, the
    k largest (0: all); top_p, the fewest that together have this probability (arXiv:1904.09751; 1: all).
    """

    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"temperature is {self.temperature}; expected a number >= 0 (0: the most likely token)")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}; expected a count >= 0 (0: all tokens)")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}; expected a probability above 0, up to 1 (1: all tokens)")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UsageError(f"repetition_penalty is {self.repetition_penalty}; expected a number above 0 (1: none)")


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt, after those that the tokenizer begins with; of an empty one, the id between documents."""
    ids = [*tokenizer.begin, *(int(i) for i in tokenizer.encode(prompt))]
    return ids or [tokenizer.eot if tokenizer.eot is not None else 0]


def sample_logits(logits: Array, sampling: Sampling, rng: np.random.Generator, seen: Array | None = None) -> Array:
    """One token a row, (B,) i32, drawn from logits (B, V) by `sampling`; its seed is not used here.

    seen: (B, V) bool, the tokens that each row holds already; without it nothing is penalised. Of equal logits the
    lower ids count as larger. One uniform number is drawn per row, so that a row's draw does not depend on V. Raises
    NumericsError when a row has no finite largest logit.
    """
    values = np.asarray(logits, np.float64)
    if seen is not None and sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        values = np.where(seen, np.where(values > 0, values / penalty, values * penalty), values)
    largest = values.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():  # a nan in a row makes its largest nan
        raise NumericsError(
            "logits are not finite: no token can be drawn", hint="check the model: `core eval` prints its loss"
        )
    if sampling.temperature == 0:
        likeliest: Array = np.argmax(values, axis=-1).astype(np.int32)
        return likeliest
    ids, total = _largest(values, largest, sampling)
    if ids is not None:
        values = np.take_along_axis(values, ids, axis=-1)
    weights = np.exp((values - largest) / sampling.temperature)
    cumulative = np.cumsum(weights, axis=-1)
    if sampling.top_p < 1:  # a token stays while those before it have less than top_p
        before = cumulative - weights
        enough = sampling.top_p * (cumulative[:, -1:] if total is None else total)
        cumulative = np.cumsum(np.where(before < enough, weights, 0.0), axis=-1)
    drawn = rng.random((len(values), 1)) * cumulative[:, -1:]
    index = (cumulative <= drawn).sum(axis=-1, keepdims=True)
    index = np.minimum(index, values.shape[-1] - 1)  # rounding may put the draw on the very end
    picked = index if ids is None else np.take_along_axis(ids, index, axis=-1)
    ids_drawn: Array = picked[:, 0].astype(np.int32)
    return ids_drawn


def _largest(values: Array, largest: Array, sampling: Sampling) -> tuple[Array | None, Array | None]:
    """The ids to draw from, largest value first; None where all may be drawn and no order is needed. And the sum of
    the weights of all (B, 1), where it is not that of these ids.

    Sorting 50,000 values takes as long as a layer: values that can never be drawn are left out. For top_p those are
    weighs less than (1 - top_p) / V of all, since all such together weigh less than 1 - top_p.
    """
    count, total = values.shape[-1], None
    some = 0 < sampling.top_k < count
    if some:
        floor = np.partition(values, -sampling.top_k, axis=-1)[:, -sampling.top_k, None]
    elif sampling.top_p < 1:
        total = np.exp((values - largest) / sampling.temperature).sum(axis=-1, keepdims=True)
        floor = largest + sampling.temperature * np.log((1 - sampling.top_p) / 2 * total / count)  # half: for rounding
    else:
        return None, None
    maybe = np.flatnonzero((values >= floor).any(axis=0))
    ids: Array = maybe[np.argsort(-values[:, maybe], axis=-1, kind="stable")]
    return (ids[:, : sampling.top_k] if some else ids), total


def generate_steps(
    session: DecodeSession,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling,
    vocabulary: int | None = None,
) -> Iterator[Array]:
    """`tokens` times the next token of every prompt, (B,) i32, drawn by `sampling`.

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
            hint="request fewer tokens or shorten the prompt",
        )
    padded = np.zeros((len(prompts), longest), np.int32)
    for row, prompt in enumerate(prompts):
        padded[row, : len(prompt)] = prompt
    rng = np.random.default_rng(sampling.seed)
    yield from continue_steps(session, session.feed(padded, counts), prompts, tokens, sampling, rng, vocabulary)


def continue_steps(
    session: DecodeSession,
    logits: Array,
    held: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling,
    rng: np.random.Generator,
    vocabulary: int | None = None,
) -> Iterator[Array]:
    """`generate_steps` for a session that holds the prompts: `held`, after which it gave `logits` (B, V).

    The last yielded token has not been fed to the session.
    """
    logits = logits[:, :vocabulary]
    seen = np.zeros(logits.shape, bool)
    for row, prompt in enumerate(held):
        seen[row, [token for token in prompt if token < logits.shape[1]]] = True
    for left in range(tokens - 1, -1, -1):
        drawn = sample_logits(logits, sampling, rng, seen)
        seen[np.arange(len(drawn)), drawn] = True
        yield drawn
        if left:
            logits = session.feed(drawn[:, None])[:, :vocabulary]


def generate(
    session: DecodeSession,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling = Sampling(),
    *,
    vocabulary: int | None = None,
    stop: Container[int | None] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """The continuations of `prompts`, without the prompts: up to `tokens` ids each, ended by a token of `stop`, which
    is left out. `cancelled()` is called between tokens. Otherwise as `generate_steps`.
    """
    continuations: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(continuations)))
    for drawn in generate_steps(session, prompts, tokens, sampling, vocabulary):
        for row in sorted(open_rows):
            if int(drawn[row]) in stop:
                open_rows.discard(row)
            else:
                continuations[row].append(int(drawn[row]))
        if not open_rows or cancelled():
            break
    return continuations
