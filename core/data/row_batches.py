"""Batches of validation from rows in their order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.data.source import Batch, DataSource
from core.roles import TARGETS


def val_rows(source: DataSource, tokens: int, B: int, rank: int, ranks: int) -> Iterator[Batch]:
    """`val_batches` of a source by its `rows`. Rows beyond the end repeat the last one, with targets of -1; without
    targets, those that fill no batch on every rank are left out."""
    count = min(source.sequences, max(1, -(-tokens // source.T)))
    if TARGETS not in source.keys:
        count -= count % (B * ranks)
    for first in range(0, count, B * ranks):
        numbers = first + rank * B + np.arange(B)
        batch = source.rows(np.minimum(numbers, count - 1))
        if TARGETS in batch:
            batch[TARGETS][numbers >= count] = -1
        yield batch
