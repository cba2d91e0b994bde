"""MarkedSource: rows of tokens with their documents, their positions, and targets that do not count.

A document begins at a mark, for conversations, whose marks also name the tokens that count in the loss; in other data
at the tokenizer's first id of a document, or after its end of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.data.marks import BEGINS, COUNTS
from core.data.source import Batch
from core.data.token_source import TokenSource
from core.errors import DataError
from core.roles import DOCUMENTS, POSITIONS, TARGETS, TOKENS
from core.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from core.data.marks import MarkedPiece
    from core.data.pieces import Piece

Flags = NDArray[np.bool_]


class MarkedSource(TokenSource):
    """`TokenSource` over pieces with or without marks. keys: tokens, targets, and those of documents and positions that
    the model has as inputs. tokenizer: whose ids the pieces without marks have; DataError where their documents are
    unknown."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        marked: Sequence[MarkedPiece],
        B: int,
        T: int,
        *,
        keys: Sequence[str],
        tokenizer: Tokenizer | None,
        seed: int = 0,
        vocab: int | None = None,
        name: str = "train",
        least: int | None = None,
    ) -> None:
        tokens = [*pieces, *(one.tokens for one in marked)]
        super().__init__(tokens, B, T, seed=seed, vocab=vocab, name=name, least=least)
        self.keys = keys
        self.unmarked = len(pieces)
        self.pieces += [one.marks for one in marked]  # after all tokens: the marks of pieces from `unmarked` on
        self._between, self._begin = tokenizer.frame if tokenizer is not None else ((), ())
        self.ends_next = tokenizer is not None and self._begin[:1] == (tokenizer.eot,)  # the next one's id ends it
        if pieces and not (self._between or self._begin) and self.wants_documents:
            whose = "no tokenizer is known" if tokenizer is None else f"tokenizer {tokenizer.name} has no end of text"
            raise DataError(
                f"{pieces[0].name}: {whose}, so the starts of documents in these tokens are unknown",
                hint='name the tokenizer of the shards in [data] tokenizer, or leave layout at "stream" with a model '
                f"that has no input {DOCUMENTS} or {POSITIONS}",
            )

    @property
    def wants_documents(self) -> bool:
        return bool({DOCUMENTS, POSITIONS} & set(self.keys))

    def row(self, piece: int, start: int, count: int) -> Batch:
        row = super().row(piece, start, count)
        marks = self.marks(piece, start, count + 1)
        if marks is not None:
            row[TARGETS] = np.where(marks[1:] & COUNTS, row[TARGETS], np.int32(-1))
        if self.wants_documents:
            begins = self.begins(row[TOKENS], marks if marks is None else marks[:-1])
            row |= numbered(begins)
        return {key: row[key] for key in self.keys}

    def marks(self, piece: int, start: int, count: int) -> NDArray[Any] | None:
        """The marks of `count` tokens of a piece; None where it has none."""
        if piece < self.unmarked:
            return None
        marks: NDArray[Any] = self._open(piece - self.unmarked + len(self._ends))[start : start + count]
        return marks

    def begins(self, tokens: NDArray[Any], marks: NDArray[Any] | None) -> Flags:
        """Whether each token (n,) is the first one of a document; of the first token, whether it is known to be."""
        if marks is not None:
            return (marks & BEGINS).astype(bool)
        if self._begin:
            return np.asarray(tokens == self._begin[0])
        after = np.zeros(len(tokens), bool)
        if self._between:
            after[1:] = tokens[:-1] == self._between[-1]
        return after


def numbered(begins: Flags) -> Batch:
    """Documents and positions, each (n,) int32 from 0, of tokens (n,) of which some begin a document."""
    first = begins.copy()
    first[:1] = True
    places = np.arange(len(first), dtype=np.int32)
    start = np.maximum.accumulate(np.where(first, places, 0))
    return {DOCUMENTS: (np.cumsum(first) - 1).astype(np.int32), POSITIONS: places - start}
