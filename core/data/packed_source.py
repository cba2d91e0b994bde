"""PackedSource: rows of whole documents, one or several each, and padding: no document continues in another row.

Documents are packed once, in the order of the data, the longest first, each into the fullest row that has room for it
(best fit, decreasing). A document of more than T tokens is cut. Padding is a document of its own, whose targets are -1.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.marked_source import MarkedSource
from core.data.marks import COUNTS
from core.data.row_batches import val_rows
from core.data.source import Batch
from core.errors import DataError
from core.roles import DOCUMENTS, POSITIONS, TARGETS, TOKENS

BLOCK = 1 << 20  # tokens that are searched for documents at a time
ROWS, PACKED = "rows", "packed"  # layouts: one document a row, or as many as have room
Numbers = NDArray[np.int64]


class PackedSource(MarkedSource):
    """`MarkedSource` in rows of whole documents. layout: ROWS or PACKED."""

    def __init__(self, *args: Any, layout: str, notes: list[str], **settings: Any) -> None:
        super().__init__(*args, **{**settings, "least": 2})
        self.layout = layout
        spans = [self._documents(piece) for piece in range(len(self._ends))]
        whole = np.concatenate([lengths for _, lengths in spans]) if spans else np.zeros(0, np.int64)
        self._piece = np.repeat(np.arange(len(spans)), [len(starts) for starts, _ in spans])
        self._start = np.concatenate([starts for starts, _ in spans])
        self._length = np.minimum(whole, self.T)
        self._drop(whole, notes)
        self._order, ends = packed(self._length, self.T) if layout == PACKED else one_by_one(len(self._length))
        self._rows = np.concatenate([[0], ends])
        self.sequences = len(ends)
        self.documents = len(self._length)
        self.share = float(self._length.sum()) / max(1, self.sequences * self.T)  # of places that are no padding
        if not self.sequences:
            raise DataError(f"{self.name}: no document has two tokens", hint="name more data")

    def _documents(self, piece: int) -> tuple[Numbers, Numbers]:
        """First tokens and lengths, in pairs of token and target, of a piece's documents."""
        count, tokens = self.pieces[piece].count, self._open(piece)
        starts = [np.zeros(1, np.int64)]
        for at in range(0, count, BLOCK):
            before = max(0, at - 1)  # a document may begin after the last token of the block before
            stop = min(count, at + BLOCK)
            begins = self.begins(tokens[before:stop], self.marks(piece, before, stop - before))
            starts.append(np.flatnonzero(begins[at - before :]) + at)
        first = np.unique(np.concatenate(starts))
        ends = np.append(first[1:], count)
        shared = (ends < count) & self.ends_next if piece < self.unmarked else np.zeros(len(first), bool)
        lengths = np.where(ends - first > 1, ends - first - 1 + shared, 0)
        return first, lengths

    def _drop(self, whole: Numbers, notes: list[str]) -> None:
        """Leave out documents without a target, and note their number and that of the cut ones."""
        counted = np.array([self._counted(i) for i in range(len(whole))], bool)
        cut = int((whole[counted] > self.T).sum())
        lost = int(((whole > 0) & ~counted).sum())
        if cut:
            notes.append(f"{self.name}: {cut:,} of {len(whole):,} documents have more than T = {self.T} tokens: cut")
        if lost:
            notes.append(f"{self.name}: {lost:,} of {len(whole):,} documents have no target within T: left out")
        for name in ("_piece", "_start", "_length"):
            setattr(self, name, getattr(self, name)[counted])

    def _counted(self, document: int) -> bool:
        length = int(self._length[document])
        marks = self.marks(int(self._piece[document]), int(self._start[document]) + 1, length) if length else None
        return length > 0 and (marks is None or bool((marks & COUNTS).any()))

    def rows(self, numbers: NDArray[np.int64]) -> Batch:
        rows = [self._row(self._order[self._rows[n] : self._rows[n + 1]]) for n in numbers]
        return {key: np.stack([row[key] for row in rows]) for key in self.keys}

    def _row(self, documents: Numbers) -> Batch:
        T = self.T
        row: Batch = {key: np.zeros(T, np.int32) for key in (TOKENS, TARGETS, DOCUMENTS, POSITIONS)}
        at = 0
        for number, document in enumerate(documents):
            length = int(self._length[document])
            part = self.row(int(self._piece[document]), int(self._start[document]), length)
            for key in (TOKENS, TARGETS):
                row[key][at : at + length] = part[key]
            row[DOCUMENTS][at : at + length] = number
            row[POSITIONS][at : at + length] = np.arange(length)
            at += length
        row[TARGETS][at:], row[DOCUMENTS][at:] = -1, len(documents)
        row[POSITIONS][at:] = np.arange(T - at)
        return row

    def val_batches(self, tokens: int, B: int | None = None, *, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        return val_rows(self, tokens, B or self.B, rank, ranks)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "layout": self.layout}


def one_by_one(count: int) -> tuple[Numbers, Numbers]:
    """`packed` with one document a row."""
    return np.arange(count), np.arange(1, count + 1)


def packed(lengths: Numbers, T: int) -> tuple[Numbers, Numbers]:
    """Documents of these lengths (n,), 1 .. T each, in rows of T: their numbers row after row, (n,), and the end of
    each row among them."""
    rows: list[list[int]] = []
    free: dict[int, list[int]] = {}  # room -> rows with as much, the one filled last at the end
    rooms: list[int] = []  # those of `free` that have a row, ascending
    for document in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[document])
        at = bisect_left(rooms, length)
        if at == len(rooms):
            row, room = len(rows), T
            rows.append([])
        else:
            room = rooms[at]
            row = free[room].pop()
            if not free[room]:
                rooms.pop(at)
        rows[row].append(document)
        left = room - length
        if left:
            if not free.setdefault(left, []):
                insort(rooms, left)
            free[left].append(row)
    order = np.array([document for row in rows for document in row], np.int64)
    return order, np.cumsum([len(row) for row in rows], dtype=np.int64)
