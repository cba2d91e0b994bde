"""llm.c's file of HellaSwag (arXiv:1905.07830): contexts, each with four completions, one of them right.

256 int32 (magic, version, number of examples, bytes of the longest), then uint16 per example: 65535, bytes of the
whole example, its index, the right one's number, 4, the context's length and tokens, and length and tokens of each
completion. hellaswag.py scores them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from core import DataError

MAGIC, VERSION = 20240522, 1
HEADER_BYTES = 1024
START = 65535  # of an example: no token
COMPLETIONS = 4
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Example:
    """A context (n,), four completions (m,), and which of them is right."""

    context: Ids
    completions: tuple[Ids, ...]
    label: int


class Questions:
    """A file whose header was read; examples are checked as they are read. `len` is their number."""

    def __init__(self, path: Path, vocab: int | None = None) -> None:
        """vocab: ids must be below it. DataError names the file and the fault."""
        self.path, self.vocab = path, vocab
        try:
            with path.open("rb") as file:
                raw, rest = file.read(HEADER_BYTES), file.read()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}", hint="check the path") from None
        if len(raw) < HEADER_BYTES:
            raise DataError(f"{path}: {len(raw)} bytes, too short for a header of {HEADER_BYTES}")
        header = np.frombuffer(raw, "<i4")
        if tuple(header[:2]) != (MAGIC, VERSION):
            raise DataError(
                f"{path}: expected llm.c's HellaSwag, magic {MAGIC}, version {VERSION}; got {header[0]}, {header[1]}",
                hint="llm.c's dev/data/hellaswag.py writes it; `core get hellaswag` fetches it",
            )
        if len(rest) % 2 or int(header[2]) < 1:
            raise DataError(f"{path}: {len(rest):,} bytes for {header[2]:,} examples: damaged")
        self._count = int(header[2])
        self._stream: NDArray[np.uint16] = np.frombuffer(rest, "<u2")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Example]:
        at = 0
        for number in range(self._count):
            example, at = self._read(number, at)
            yield example
        if at != self._stream.size:
            self._bad(self._count - 1, "there is data after the last one")

    def _read(self, number: int, at: int) -> tuple[Example, int]:
        """The example that starts at a place of the stream, and where it ends."""
        head = [int(n) for n in self._stream[at : at + 6]]
        if len(head) < 6 or head[0] != START or head[4] != COMPLETIONS:
            self._bad(number, f"starts with {head}, expected {START}, bytes, index, label, {COMPLETIONS}, length")
        end = at + head[1] // 2
        if head[3] >= COMPLETIONS or head[1] % 2 or end > self._stream.size:
            self._bad(number, f"claims {head[1]:,} bytes and the label {head[3]}")
        parts, place = [], at + 5
        for _ in range(1 + COMPLETIONS):
            length = int(self._stream[place]) if place < end else 0
            if length < 1 or place + 1 + length > end:
                self._bad(number, f"has a part of {length} tokens at value {place - at}, of {end - at}")
            parts.append(self._stream[place + 1 : place + 1 + length].astype(np.int32))
            place += 1 + length
        if place != end:
            self._bad(number, f"ends at value {place - at}, its length is {end - at}")
        largest = max(int(part.max()) for part in parts)
        if self.vocab is not None and largest >= self.vocab:
            self._bad(number, f"has the token {largest}; the model knows {self.vocab:,}")
        return Example(parts[0], tuple(parts[1:]), head[3]), end

    def _bad(self, number: int, why: str) -> NoReturn:
        raise DataError(
            f"{self.path}: example {number} of {self._count:,} {why}: damaged, or of another model's tokens",
            hint="fetch it again: core get hellaswag",
        )
