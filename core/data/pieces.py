"""Pieces of tokens, from which `TokenSource` draws. A shard is one, and so are tokens in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.data.shards import FORMATS, SAMPLE_BYTES, Tokens, header_of, quick_hash
from core.errors import DataError


@dataclass(frozen=True)
class InMemory:
    """Tokens without a file: a read-only cache, or a caller's array."""

    name: str
    array: Tokens

    @property
    def count(self) -> int:
        return int(self.array.size)

    def open(self) -> Tokens:
        return self.array

    def byte_offset(self, token: int) -> int:
        return token * self.array.dtype.itemsize

    def describe(self) -> dict[str, Any]:
        """The description of a shard with these tokens: their location makes no difference."""
        raw = np.ascontiguousarray(self.array)
        header = header_of(next(f for f in FORMATS if f.dtype.itemsize == raw.itemsize), self.count)
        digest = hashlib.sha256(header)
        digest.update(raw.data)
        flat = raw.view(np.uint8)
        quick = quick_hash(raw.nbytes, lambda at: flat[at : at + SAMPLE_BYTES].tobytes())
        whole = digest.hexdigest()
        return {"file": self.name, "tokens": self.count, "bytes": raw.nbytes, "hash": quick, "sha256": whole}


def array_piece(array: NDArray[Any], name: str) -> InMemory:
    """A caller's array of ids (n,) as a piece. DataError for another shape, and for no ids."""
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.size and int(array.min()) < 0):
        raise DataError(
            f"{name}: expected arrays (n,) of ids, got {array.dtype} {array.shape}",
            hint="flatten it, and use ids >= 0",
        )
    return InMemory(name, array.astype(np.uint32))


class Piece(Protocol):
    """Tokens in their order, of a shard or of a reader's own source, for `TokenSource`."""

    @property
    def name(self) -> str: ...
    @property
    def count(self) -> int:
        """The number of tokens."""
        ...

    def open(self) -> Any:
        """The source of tokens: `[a:b]` is (b - a,) of an unsigned type."""
        ...

    def byte_offset(self, token: int) -> int:
        """The place of a token, for errors."""
        ...

    def describe(self) -> dict[str, Any]:
        """Identity for a resume: {"file", "tokens", "bytes", "hash", "sha256"}, equal for equal tokens alone."""
        ...
