"""DataSource: rows of data in an order that follows from the seed and a row's number alone, and the batches of a step.

The unit of the order is the row, not the batch: row number g of a run is row `permutation(g % N)` of epoch `g // N`.
So a batch needs no state but the step, ranks and micro-steps of every number partition the same rows, and a resumed run
draws the rows of an unbroken one.

The permutation is computed, not stored: a Feistel network over the numbers below a power of four, walked until it falls
below N (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). No memory for billions of tokens, and no
dependence on a library's random stream.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.roles import TARGETS, TOKENS

Array = NDArray[Any]
Batch = dict[str, Array]  # role, or input without one -> (rows, ...)

ROUNDS = 8
SPAN = 1024


class DataSource(ABC):
    """Rows 0 .. sequences - 1 of an epoch, in an order. keys: the roles and inputs that a row has; tokens: of an
    epoch; T: of a row."""

    sequences: int
    tokens: int
    keys: Sequence[str] = (TOKENS, TARGETS)

    def __init__(self, B: int, T: int, seed: int, name: str) -> None:
        self.B, self.T, self.seed, self.name = B, T, seed, name
        self._epoch = 0
        self._span = functools.lru_cache(16)(self._permute_span)

    @abstractmethod
    def rows(self, numbers: NDArray[np.int64]) -> Batch:
        """Rows by their numbers (k,): role or input -> (k, ...). DataError for contents that no model can take."""

    @abstractmethod
    def val_batches(self, tokens: int, B: int | None = None, *, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The first rows of the data in order, as many as have `tokens` tokens, in batches of B rows, each row on one
        rank; every rank gets as many batches. Rows beyond the end have targets of -1, which losses ignore."""

    @abstractmethod
    def files(self) -> list[dict[str, Any]]:
        """The records of the rows' sources, in order."""

    def describe(self) -> dict[str, Any]:
        """The facts that determine order and contents of batches, for state.json; compare with `diff_description`."""
        facts = ("name", "seed", "T", "tokens", "sequences")
        return {**{fact: getattr(self, fact) for fact in facts}, "files": self.files()}

    def check_unchanged(self) -> None:  # noqa: B027
        """DataError where a file that was read is another one now; each epoch looks again."""

    def batch(
        self, step: int, micro_step: int = 0, micro_steps: int = 1, rank: int = 0, ranks: int = 1, *, first: int = 0
    ) -> Batch:
        """The batch of a rank's micro-step; steps count from 0. The order is over the whole run, epoch after epoch.

        first: how many rows were drawn before step 0.
        """
        if not (0 <= micro_step < micro_steps and 0 <= rank < ranks and step >= 0):
            raise ValueError(f"step {step}, micro-step {micro_step} of {micro_steps}, rank {rank} of {ranks}")
        first += ((step * micro_steps + micro_step) * ranks + rank) * self.B
        if first // self.sequences != self._epoch:
            self._epoch = first // self.sequences
            self.check_unchanged()
        return self.rows(self.order(np.arange(first, first + self.B)))

    def order(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of the data for numbers (k,) of a run: (k,)."""
        places = (divmod(number, self.sequences) for number in numbers.tolist())
        return np.array([self._span(epoch, place // SPAN)[place % SPAN] for epoch, place in places], np.int64)

    def _permute_span(self, epoch: int, span: int) -> NDArray[np.int64]:
        """The order of SPAN rows of an epoch at once, which costs little more than that of one."""
        places = np.arange(span * SPAN, min(self.sequences, (span + 1) * SPAN), dtype=np.int64)
        return permute(places, self.sequences, self.seed, epoch)


def permute(places: NDArray[np.int64], n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """places (k,) in 0 .. n - 1 to distinct numbers in 0 .. n - 1: one permutation for every seed and epoch."""
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    keys = _mix(np.array([seed % 2**64, epoch % 2**64, *range(ROUNDS)], np.uint64))
    keys = _mix(_mix(keys[:1] ^ np.uint64(0x5DEECE66D)) ^ (keys[1] + keys[2:]))
    out = places.astype(np.uint64)
    walking = np.arange(len(out))
    while walking.size:
        left, right = out[walking] >> half, out[walking] & low
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & low)
        out[walking] = (left << half) | right
        walking = walking[out[walking] >= n]
    return out.astype(np.int64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64 bits in which every bit depends on every other (the finaliser of SplitMix64)."""
    x = np.atleast_1d(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
