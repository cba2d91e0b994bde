"""TokenSource: sequences of T + 1 tokens in an order that follows from the seed and the sequence's number alone.

Token pieces (shards or arrays) are cut into sequences of stride T; no sequence spans two pieces. The unit of the order
is the sequence, not the batch: sequence number g of a run is sequence `permutation(g % N)` of epoch `g // N`. So a
batch needs no state but the step, ranks and micro-steps of every number partition the same sequences, and a resumed
run draws the sequences of an unbroken one.

The permutation is computed, not stored: a Feistel network over the numbers below a power of four, walked until it falls
below N (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). No memory for billions of tokens, and no
dependence on a library's random stream.
"""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.data.digests import Blocks, file_digests, mark_of
from core.data.shards import Reader, Shard, Tokens, open_shard
from core.errors import DataError
from core.outside import reads

if TYPE_CHECKING:
    from core.data.pieces import Piece

Ids = NDArray[np.int32]
Batch = tuple[Ids, Ids]

ROUNDS = 8
SPAN = 1024
OPEN_PIECES = 256  # files held open at a time, where the system allows four times as many
UP_FRONT_TOKENS = 1 << 26  # this many are checked against the vocabulary at the start; the rest as they are drawn


class TokenSource:
    """Batches of (tokens, targets), each (B, T) int32; a target is the token that follows.

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
        self.pieces: list[Piece] = [_piece(p, i, name) for i, p in enumerate(pieces)]
        self.B, self.T, self.seed, self.vocab, self.name = B, T, seed, vocab, name
        self.tokens = sum(piece.count for piece in self.pieces)
        counts = np.array([(piece.count - 1) // T if piece.count else 0 for piece in self.pieces], np.int64)
        self._ends = np.cumsum(counts, dtype=np.int64)
        self.sequences = int(self._ends[-1]) if self.pieces else 0  # of an epoch
        self._blocks: dict[int, Blocks] = {}
        self._opened: OrderedDict[int, Reader] = OrderedDict()  # the one used last is the last
        self._marks: dict[int, list[int]] = {}  # of each shard that was read, when it was first opened
        self._sha256: dict[int, str] = {}
        self._epoch = 0
        self._span = functools.lru_cache(16)(self._permute_span)
        needed = B * T + 1 if least is None else least
        if self.tokens < needed or (least is None and self.sequences == 0):
            from core.data.data_faults import no_sequence, too_few

            batch = (B, T) if least is None else None
            raise too_few(name, self.tokens, needed, batch) if self.tokens < needed else no_sequence(name, T)

    def batch(
        self, step: int, micro_step: int = 0, micro_steps: int = 1, rank: int = 0, ranks: int = 1, *, first: int = 0
    ) -> Batch:
        """The batch of a rank's micro-step; steps count from 0. The order is over the whole run, epoch after epoch.

        first: how many sequences were drawn before step 0.
        """
        if not (0 <= micro_step < micro_steps and 0 <= rank < ranks and step >= 0):
            raise ValueError(f"step {step}, micro-step {micro_step} of {micro_steps}, rank {rank} of {ranks}")
        first += ((step * micro_steps + micro_step) * ranks + rank) * self.B
        if first // self.sequences != self._epoch:
            self._epoch = first // self.sequences
            self.check_unchanged()
        rows = [self._window(*self._locate(int(s)), self.T) for s in self.order(first, self.B)]
        both = np.stack(rows)
        return np.ascontiguousarray(both[:, :-1]), np.ascontiguousarray(both[:, 1:])

    def order(self, first: int, count: int) -> NDArray[np.int64]:
        """The sequences of the data behind numbers first .. first + count - 1 of a run: (count,)."""
        places = (divmod(number, self.sequences) for number in range(first, first + count))
        return np.array([self._span(epoch, place // SPAN)[place % SPAN] for epoch, place in places], np.int64)

    def val_batches(self, tokens: int, B: int | None = None, *, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The first `tokens` targets of the data in order, or all of them if there are fewer, as batches (B, T).

        The targets are the same for any B, T and `ranks`, each on one rank; every rank gets as many batches. Places
        beyond the end have token 0 and target -1, which losses ignore.
        """
        B = B or self.B
        windows = self._windows(tokens)
        while together := list(itertools.islice(windows, B * ranks)):
            x, y = np.zeros((B, self.T), np.int32), np.full((B, self.T), -1, np.int32)
            for row, (piece, start, count) in enumerate(together[rank * B : (rank + 1) * B]):
                window = self._window(piece, start, count)
                x[row, :count], y[row, :count] = window[:-1], window[1:]
            yield x, y

    def check_tokens(self) -> None:
        """Check ids against the vocabulary now, as far as that is quick; the others are checked when they are drawn."""
        if self.vocab is None or self.tokens > UP_FRONT_TOKENS:
            return
        for i in range(len(self.pieces)):
            tokens = self._open(i)
            for at in range(0, len(tokens), 1 << 20):
                self._check(i, at, tokens[at : at + (1 << 20)])

    def describe(self) -> dict[str, Any]:
        """The facts that determine order and contents of batches, for state.json; compare with `diff_description`."""
        return {
            "name": self.name,
            "seed": self.seed,
            "T": self.T,
            "tokens": self.tokens,
            "sequences": self.sequences,
            "files": [piece.describe() for piece in self.pieces],
        }

    def check_unchanged(self) -> None:
        """DataError when a shard that was read is not the file that it was: each epoch looks again."""
        for number, mark in list(self._marks.items()):
            piece = self.pieces[number]
            assert isinstance(piece, Shard)
            with reads(DataError, piece.path):
                if mark_of(piece.path) == mark:
                    continue
                same = file_digests(piece.path).sha256 == self._sha256[number]
            if not same:
                from core.data.data_faults import changed

                raise changed(piece.path)
            self._marks[number] = mark_of(piece.path)

    def _open(self, number: int) -> Any:
        """A piece's tokens to slice. So many files are held open as the system allows."""
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

    def _permute_span(self, epoch: int, span: int) -> NDArray[np.int64]:
        """The order of SPAN sequences of an epoch at once, which costs little more than that of one."""
        places = np.arange(span * SPAN, min(self.sequences, (span + 1) * SPAN), dtype=np.int64)
        return permute(places, self.sequences, self.seed, epoch)

    def _locate(self, sequence: int) -> tuple[int, int]:
        """Sequence number to piece and first token."""
        piece = int(np.searchsorted(self._ends, sequence, side="right"))
        before = int(self._ends[piece - 1]) if piece else 0
        return piece, (sequence - before) * self.T

    def _window(self, piece: int, start: int, count: int) -> Ids:
        """Tokens start .. start + count of a piece: (count + 1,)."""
        tokens: Tokens = self._open(piece)[start : start + count + 1]
        self._check(piece, start, tokens)
        return tokens.astype(np.int32)

    def _windows(self, tokens: int) -> Iterator[tuple[int, int, int]]:
        for i, piece in enumerate(self.pieces):
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


def _piece(piece: Piece | Path | NDArray[Any], number: int, name: str) -> Piece:
    if isinstance(piece, Path):
        return open_shard(piece)
    if isinstance(piece, np.ndarray):
        if piece.ndim != 1 or piece.dtype.kind not in "iu" or (piece.size and int(piece.min()) < 0):
            raise DataError(
                f"{name}: expected arrays (n,) of ids, got {piece.dtype} {piece.shape}",
                hint="flatten it, and use ids >= 0",
            )
        from core.data.pieces import InMemory  # a run draws from shards

        return InMemory(f"{name}[{number}]", piece.astype(np.uint32))
    return piece
