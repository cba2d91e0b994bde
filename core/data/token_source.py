"""TokenSource: rows of T + 1 tokens, cut from pieces (shards or arrays) with stride T; no row spans two pieces."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.data.digests import Blocks
from core.data.shards import Reader, Shard, Tokens, open_shard
from core.data.source import Batch, DataSource
from core.errors import DataError
from core.outside import reads
from core.roles import TARGETS, TOKENS

if TYPE_CHECKING:
    from core.data.pieces import Piece

Ids = NDArray[np.int32]

OPEN_PIECES = 256  # files held open at a time, where the system allows four times as many
UP_FRONT_TOKENS = 1 << 26  # this many are checked at the start to be in the vocabulary; the rest as they are drawn


class TokenSource(DataSource):
    """Rows of tokens and targets, each (T,) int32; a target is the token that follows.

    pieces: shards, paths of shards, or integer arrays (n,); vocab: ids must be below it (None: unchecked). `least` is
    the number of tokens needed at least, B * T + 1 for training. DataError when there are fewer.
    """

    def __init__(
        self,
        pieces: Sequence[Piece | Path | NDArray[Any]],
        B: int,
        T: int,
        *,
        seed: int = 0,
        vocab: int | None = None,
        name: str = "train",
        least: int | None = None,
    ) -> None:
        super().__init__(B, T, seed, name)
        self.pieces: list[Piece] = [_piece(p, i, name) for i, p in enumerate(pieces)]
        self.vocab = vocab
        self.tokens = sum(piece.count for piece in self.pieces)
        counts = np.array([(piece.count - 1) // T if piece.count else 0 for piece in self.pieces], np.int64)
        self._ends = np.cumsum(counts, dtype=np.int64)
        self.sequences = int(self._ends[-1]) if self.pieces else 0  # of an epoch
        self._blocks: dict[int, Blocks] = {}
        self._opened: OrderedDict[int, Reader] = OrderedDict()  # the one used last is the last
        self._marks: dict[int, list[int]] = {}  # of each shard that was read, when it was first opened
        self._sha256: dict[int, str] = {}
        needed = B * T + 1 if least is None else least
        if self.tokens < needed or (least is None and self.sequences == 0):
            from core.data.data_faults import no_sequence, too_few

            batch = (B, T) if least is None else None
            raise too_few(name, self.tokens, needed, batch) if self.tokens < needed else no_sequence(name, T)

    def rows(self, numbers: NDArray[np.int64]) -> Batch:
        rows = [self.row(*self._locate(int(number)), self.T) for number in numbers]
        return {key: np.stack([row[key] for row in rows]) for key in self.keys}

    def row(self, piece: int, start: int, count: int) -> Batch:
        """A row of `count` tokens from token `start` of a piece on."""
        window = self.window(piece, start, count)
        return {TOKENS: window[:-1], TARGETS: window[1:]}

    def val_batches(self, tokens: int, B: int | None = None, *, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The first `tokens` targets of the data in order, or all if there are fewer, for any B, T and `ranks` alike.
        Places beyond the end have token 0 and target -1."""
        B = B or self.B
        windows = self._windows(tokens)
        while together := list(itertools.islice(windows, B * ranks)):
            batch: Batch = {key: np.full((B, self.T), -(key == TARGETS), np.int32) for key in self.keys}
            for number, (piece, start, count) in enumerate(together[rank * B : (rank + 1) * B]):
                for key, values in self.row(piece, start, count).items():
                    batch[key][number, :count] = values
            yield batch

    def check_tokens(self) -> None:
        """Compare ids with the vocabulary now, as far as that is quick; the others are checked when they are drawn."""
        if self.vocab is None or self.tokens > UP_FRONT_TOKENS:
            return
        for i in range(len(self._ends)):
            tokens = self._open(i)
            for at in range(0, len(tokens), 1 << 20):
                self._check(i, at, tokens[at : at + (1 << 20)])

    def files(self) -> list[dict[str, Any]]:
        return [piece.describe() for piece in self.pieces]

    def check_unchanged(self) -> None:
        if self._marks:
            from core.data.unchanged import check_shards  # once an epoch

            check_shards(self.pieces, self._marks, self._sha256)

    def _open(self, number: int) -> Any:
        """A piece's tokens to slice. As many files are held open as the system allows."""
        piece = self.pieces[number]
        if not isinstance(piece, Shard):
            return piece.open()
        reader = self._opened.pop(number, None)
        if reader is None:
            while len(self._opened) >= most_open():
                self._opened.popitem(last=False)[1].close()
            if number not in self._blocks:
                with reads(DataError, piece.path):
                    digests = piece.digests()
                self._blocks[number], self._sha256[number] = Blocks(digests.blocks), digests.sha256
            reader = piece.reader(self._blocks[number])
            self._marks.setdefault(number, reader.mark)
        self._opened[number] = reader
        return reader

    def _locate(self, sequence: int) -> tuple[int, int]:
        """Sequence number to piece and first token."""
        piece = int(np.searchsorted(self._ends, sequence, side="right"))
        before = int(self._ends[piece - 1]) if piece else 0
        return piece, (sequence - before) * self.T

    def window(self, piece: int, start: int, count: int) -> Ids:
        """Tokens start .. start + count of a piece: (count + 1,)."""
        tokens: Tokens = self._open(piece)[start : start + count + 1]
        self._check(piece, start, tokens)
        return tokens.astype(np.int32)

    def _windows(self, tokens: int) -> Iterator[tuple[int, int, int]]:
        for i, piece in enumerate(self.pieces[: len(self._ends)]):
            for start in range(0, piece.count - 1, self.T):
                count = min(self.T, piece.count - 1 - start, tokens)
                if count <= 0:
                    return
                yield i, start, count
                tokens -= count

    def _check(self, piece: int, start: int, tokens: Tokens) -> None:
        if self.vocab is None or not tokens.size or int(tokens.max()) < self.vocab:
            return
        from core.data.data_faults import foreign_id

        at, source = int(np.argmax(tokens >= self.vocab)), self.pieces[piece]
        raise foreign_id(source.name, self.vocab, int(tokens[at]), start + at, source.byte_offset(start + at))


@functools.cache
def most_open() -> int:
    """The number of shards that stay open: a share of the files that this process may open (`ulimit -n`)."""
    try:
        import resource
    except ImportError:  # Windows
        return OPEN_PIECES
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_PIECES if soft == resource.RLIM_INFINITY else max(1, min(OPEN_PIECES, soft // 8))


def _piece(piece: Piece | Path | NDArray[Any], number: int, name: str) -> Piece:
    if isinstance(piece, Path):
        return open_shard(piece)
    if isinstance(piece, np.ndarray):
        from core.data.pieces import array_piece  # a run draws from shards

        return array_piece(piece, f"{name}[{number}]")
    return piece
