"""Conversations, and the marks of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.data.pieces import Piece

BEGINS, COUNTS = 1, 2  # of a token's mark: the first one of a document; one that counts in the loss


@dataclass(frozen=True)
class Conversations:
    """Conversations with a name, a size in bytes and a digest, as of `Document`. records(): (place, messages) of each,
    from the start; messages: a list of {"role", "content"}, which may be anything else in a damaged file."""

    name: str
    size: int
    digest: str
    records: Callable[[], Iterator[tuple[str, Any]]]


@dataclass(frozen=True)
class MarkedPiece:
    """Tokens, and as many marks (BEGINS, COUNTS)."""

    tokens: Piece
    marks: Piece
