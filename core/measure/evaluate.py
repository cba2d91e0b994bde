"""Measures of a model that is not being trained: loss and bits per byte.

It knows an engine, batches and the bytes of tokens, and neither files nor the origin of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.engine import Engine
from core.engine.batch import by_input
from core.errors import UsageError
from core.roles import TARGETS, TOKENS
from core.tokenizers.tokenizer import Tokenizer

Array = np.ndarray[Any, Any]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Measured:
    """loss: the mean objective over the targets, as validation has it; nll: the mean of the tokens' own cross-entropy
    in nats, which is less where the objective has more terms. bytes: of the targets as text, None without a tokenizer.
    """

    loss: float
    nll: float
    targets: int
    bytes: int | None

    @property
    def bits_per_byte(self) -> float | None:
        """Bits that the model needs for a byte of the text; ends of documents cost bits and are no bytes."""
        return self.nll * self.targets / math.log(2) / self.bytes if self.bytes else None


def token_loss(engine: Engine) -> str:
    """The graph's value that holds each target's cross-entropy, (B, T). UsageError for a model without one."""
    graph = engine.graph
    tokens = graph.inputs[engine.token_input].shape
    for node in graph.nodes:
        if graph.logits in node.inputs.values():
            for value in node.outputs.values():
                if value in graph.loss and graph.values[value].shape == tokens:
                    return value
    raise UsageError(
        f"model {graph.name} has no per-token loss made of its logits",
        hint='loss = "loss", with loss = { op = "cross_entropy", in = ["logits", "targets"] }',
    )


class Bytes:
    """Counts the bytes of text of tokens: none for an end of text, nor for the blank that a tokenizer puts before
    a text, which is a byte of its first token and not of the text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.lengths, self.dummy = tokenizer.lengths, tokenizer.dummy
        self.opens = next(iter(tokenizer.frame[1][-1:]), -1)  # the id before a document's first token

    def __call__(self, tokens: Array, targets: Array) -> int:
        """Bytes of text of targets (n,), each after its token (n,)."""
        in_vocabulary = targets < self.lengths.size
        of = self.lengths[targets[in_vocabulary]]
        first = (tokens[in_vocabulary] == self.opens) & (of > 0)
        return int(of.sum()) - self.dummy * int(first.sum())


def measure(
    engine: Engine, batches: Iterable[Mapping[str, Array]], size: Bytes | None, progress: Progress | None = None
) -> Measured:
    """The model over batches by role, each (B, T); negative targets do not count.

    size: None where no tokenizer is known. progress: called with the number of targets done.
    """
    terms, own = list(engine.graph.loss), token_loss(engine)
    loss = nll = 0.0
    count = total_bytes = 0
    for batch in batches:
        tokens, targets = batch[TOKENS], batch[TARGETS]
        values = dict(zip(terms, engine.values(by_input(batch, engine.graph), terms), strict=True))
        counted = targets >= 0
        n = int(counted.sum())
        for term, weight in engine.graph.loss.items():
            losses = values[term].astype(np.float64)
            loss += weight * (float(losses.sum()) if losses.ndim else float(losses) * n)
        nll += float(values[own].astype(np.float64).sum())
        count += n
        if size is not None:
            total_bytes += size(tokens[counted], targets[counted])
        if progress is not None:
            progress(count)
    return Measured(loss / count, nll / count, count, total_bytes if size is not None else None)
