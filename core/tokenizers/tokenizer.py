"""Tokenizer, the base class of all kinds: text to ids and back, and a record for checkpoints.

A plugin's kind (`core_tokenizers`) makes objects of a class derived from `Tokenizer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "\ufffd".encode()  # the text of an id without a token


class Tokenizer(ABC):
    """Text to ids and back. A class of a kind has `encode`, `hash`, `to_json`, and the fields:

    kind: as `[data] tokenizer` calls it; name: for people; tokens: the byte string of each id; vocab_size: the number
    of ids; eot: the id of the end of a text, None without one; bos: the id that config.json names as the start of a
    text; begin: ids that a prompt begins with; dummy: bytes that the first token of a text has and the text has not.
    """

    kind: str
    name: str
    tokens: Sequence[bytes]
    vocab_size: int
    eot: int | None = None
    bos: int | None = None
    begin: tuple[int, ...] = ()
    dummy: int = 0

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int32]:
        """Ids (n,) int32; a special token written in `text` is text."""

    @property
    @abstractmethod
    def hash(self) -> str:
        """sha256, in hexadecimal, over everything that decides the ids of a text: equal for equal tokenizers alone."""

    @abstractmethod
    def to_json(self) -> str:
        """The whole tokenizer as a JSON object: `record`, and "format", by which the kind's `restore` is found."""

    @property
    def whole(self) -> bool:
        """Whether tokens may continue over a blank after a word, so that a text cannot be encoded in parts."""
        return True

    @property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids between two documents, and those that each begins with: end of text, as in llm.c's shards."""
        return (), (() if self.eot is None else (self.eot,))

    def encode_more(self, text: str) -> NDArray[np.int32]:
        """The ids of a later part of a text, cut before a blank that follows a letter or digit."""
        return self.encode(text)

    def decode_bytes(self, ids: ArrayLike) -> bytes:
        """The bytes of ids (n,); an id without a token (padding of the vocabulary) gives U+FFFD."""
        table, size = self._table, self.vocab_size
        return b"".join([table[i] if 0 <= i < size else UNKNOWN for i in np.asarray(ids).reshape(-1).tolist()])

    def decode(self, ids: ArrayLike) -> str:
        """Text of ids (n,); bytes that are no UTF-8 (half a character at an end) give U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(vocab_size,) bytes of text of each id; 0 for end of text."""
        return np.array([0 if i == self.eot else len(token) for i, token in enumerate(self._table)], np.int64)

    @property
    def hashes(self) -> frozenset[str]:
        """The hashes of tokenizers that give the same ids, its own included."""
        return frozenset([self.hash])

    def record(self) -> dict[str, Any]:
        """The record of the tokenizer in shards and runs."""
        return {"kind": self.kind, "name": self.name, "hash": self.hash, "vocab_size": self.vocab_size, "eot": self.eot}

    @property
    def _table(self) -> Sequence[bytes]:
        """The byte string of each id, `vocab_size` of them."""
        return self.tokens


def without_surrogates(text: str) -> str:
    """`text` with U+FFFD for every lone surrogate, which UTF-8 cannot hold; a pair is joined to its character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
