"""Sources made of others: Aligned joins rows of one number; Mixture draws from several with weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.row_batches import val_rows
from core.data.source import Array, Batch, DataSource, permute
from core.errors import DataError

PERIOD = 1024  # rows of a mix in which every source has its share exactly, to the nearest row
SEEDS = 1 << 32  # between the seeds of a mix's sources


class JoinedSource(DataSource):
    """Base of both. members: name -> source."""

    def __init__(self, members: Mapping[str, DataSource], B: int, T: int, seed: int, name: str) -> None:
        super().__init__(B, T, seed, name)
        self.members = dict(members)
        self.tokens = sum(member.tokens for member in members.values())

    def val_batches(self, tokens: int, B: int | None = None, *, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        return val_rows(self, tokens, B or self.B, rank, ranks)

    def files(self) -> list[dict[str, Any]]:
        return [file for member in self.members.values() for file in member.files()]

    def describe(self) -> dict[str, Any]:
        members = {name: _own(member.describe()) for name, member in self.members.items()}
        return {**super().describe(), "members": members}

    def check_unchanged(self) -> None:
        for member in self.members.values():
            member.check_unchanged()


class Aligned(JoinedSource):
    """Row n of every member, as one row. A key of a later member replaces that of an earlier one. DataError for members
    of different numbers of rows."""

    def __init__(self, members: Mapping[str, DataSource], B: int, T: int, seed: int, name: str) -> None:
        super().__init__(members, B, T, seed, name)
        counts = {key: member.sequences for key, member in members.items()}
        if len(set(counts.values())) > 1:
            raise DataError(
                f"{name}: its sources are aligned by row, and have "
                + ", ".join(f"{count:,} ({key})" for key, count in counts.items()),
                hint='each row of one needs its row in the others; layout = "rows" makes one row of each document',
            )
        self.sequences = next(iter(counts.values()))
        self.tokens = self.sequences * T
        self.keys = list(dict.fromkeys(key for member in members.values() for key in member.keys))

    def rows(self, numbers: NDArray[np.int64]) -> Batch:
        batch: Batch = {}
        for member in self.members.values():
            batch |= member.rows(numbers)
        return batch


class Mixture(JoinedSource):
    """Rows of all members, drawn by weight: of each PERIOD rows of a run, a member has a fixed number, in an order that
    follows from the seed and the period; its own rows come in its own order, epoch after epoch.

    weights: member -> a number > 0, relative to the others. DataError for one that has less than a row of a period.
    """

    def __init__(
        self, members: Mapping[str, DataSource], weights: Mapping[str, float], B: int, T: int, seed: int, name: str
    ) -> None:
        super().__init__(members, B, T, seed, name)
        self.keys = next(iter(members.values())).keys
        self.sequences = sum(member.sequences for member in members.values())
        self.quotas = dict(zip(members, quotas([weights[key] for key in members], PERIOD), strict=True))
        for number, (key, member) in enumerate(self.members.items()):
            member.seed = seed + number * SEEDS
            if not self.quotas[key]:
                raise DataError(
                    f'{name}: "{key}" has less than one of {PERIOD:,} rows by its weight {weights[key]:g}',
                    hint="raise its weight, or leave it out",
                )
        self._first = np.cumsum([0, *(member.sequences for member in members.values())])
        self._period = functools.lru_cache(16)(self._draw_period)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "quotas": self.quotas}

    def _draw_period(self, period: int) -> tuple[Array, Array]:
        """For each row of a period: its member's number, and its number among the member's rows of the period."""
        slots = permute(np.arange(PERIOD), PERIOD, self.seed + SEEDS // 2, period)
        ends = np.cumsum(list(self.quotas.values()))
        of = np.searchsorted(ends, slots, side="right")
        among = np.zeros(PERIOD, np.int64)
        for number in range(len(ends)):
            among[of == number] = np.arange(int((of == number).sum()))
        return of, among

    def order(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        drawn = np.zeros(len(numbers), np.int64)
        of = np.zeros(len(numbers), np.int64)
        for at, number in enumerate(numbers.tolist()):
            period, slot = divmod(number, PERIOD)
            members, among = self._period(period)
            of[at] = members[slot]
            drawn[at] = period * list(self.quotas.values())[of[at]] + among[slot]
        for number, member in enumerate(self.members.values()):
            mine = of == number
            drawn[mine] = member.order(drawn[mine]) + self._first[number]
        return drawn

    def rows(self, numbers: NDArray[np.int64]) -> Batch:
        of = np.searchsorted(self._first, numbers, side="right") - 1
        batch: Batch = {}
        for number, member in enumerate(self.members.values()):
            mine = of == number
            if mine.any():
                for key, values in member.rows(numbers[mine] - self._first[number]).items():
                    batch.setdefault(key, np.zeros((len(numbers), *values.shape[1:]), values.dtype))[mine] = values
        return batch


def quotas(weights: Sequence[float], rows: int) -> list[int]:
    """`rows` divided by weight: whole numbers of the largest remainders, the first of equal ones first."""
    exact = np.array(weights, np.float64) / np.sum(weights) * rows
    whole = np.floor(exact).astype(int)
    for number in np.argsort(-(exact - whole), kind="stable")[: rows - int(whole.sum())]:
        whole[number] += 1
    return [int(n) for n in whole]


def _own(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in ("name", "T", "files", "seed")}
