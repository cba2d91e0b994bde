"""ArraySource: an input of the graph from arrays by row: .npy files, tensors of safetensors, a reader's own arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.data.digests import file_digests, mark_of
from core.data.row_batches import val_rows
from core.data.source import Array, Batch, DataSource
from core.errors import DataError
from core.graph import Value
from core.outside import open_file, read_values, reads
from core.roles import TARGETS

UNNAMED = ""  # of an array whose file does not name its input
UP_FRONT = 1 << 26  # elements that are checked at the start; those of larger arrays as they are drawn
ROWS_AT_ONCE = 1 << 12  # of the check
ENDS = "a row of the array is one of the batch: its shape is that of the input without B"


class ArrayRows(Protocol):
    """An array that is read by row. shape, dtype: of all of it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def take(self, numbers: Sequence[int]) -> Array:
        """Rows by number: (k, *shape[1:])."""
        ...

    def describe(self) -> dict[str, Any]:
        """Identity for a resume, as of `core.data.Piece`."""
        ...

    def check_unchanged(self) -> None:
        """DataError where its file is another one now."""
        ...


@dataclass
class HeldRows:
    """An array in memory as `ArrayRows`: (n, ...)."""

    name: str
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def take(self, numbers: Sequence[int]) -> Array:
        return self.array[list(numbers)]

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256(np.ascontiguousarray(self.array).data).hexdigest()
        size = int(self.array.nbytes)
        return {"file": self.name, "tokens": len(self.array), "bytes": size, "hash": digest[:32], "sha256": digest}

    def check_unchanged(self) -> None:
        pass


class FileRows:
    """An array in a file, from byte `start` on. stored: dtype there; widen: from its numbers to those drawn."""

    def __init__(self, path: Path, name: str, stored: np.dtype[Any], start: int, shape: tuple[int, ...], widen: Any):
        self.path, self.name, self.shape = path, name, shape
        self._stored, self._start, self._widen = stored, start, widen
        self.dtype = widen(np.zeros(0, stored)).dtype
        with reads(DataError, path):
            self._mark, self._sha256 = mark_of(path), file_digests(path).sha256

    def take(self, numbers: Sequence[int]) -> Array:
        shape = self.shape[1:]
        size = int(np.prod(shape, dtype=np.int64)) * self._stored.itemsize
        with reads(DataError, self.path), open_file(self.path) as file:
            rows = [read_values(file, self._stored, self._start + number * size, shape) for number in numbers]
        widened: Array = self._widen(np.stack(rows))
        return widened

    def describe(self) -> dict[str, Any]:
        size = int(np.prod(self.shape, dtype=np.int64)) * self._stored.itemsize
        with reads(DataError, self.path):
            whole = file_digests(self.path).sha256
        return {"file": self.name, "tokens": self.shape[0], "bytes": size, "hash": whole[:32], "sha256": whole}

    def check_unchanged(self) -> None:
        from core.data.unchanged import same_file

        self._mark = same_file(self.path, self._mark, self._sha256)


class ArraySource(DataSource):
    """Rows of one input, `key`, from arrays one after another. value: the input in the graph, (B, ...).

    DataError for other shapes, dtypes or contents than the input's; the first B in its shape is no matter.
    """

    def __init__(
        self, key: str, arrays: Sequence[ArrayRows], value: Value, B: int, T: int, seed: int, name: str
    ) -> None:
        super().__init__(B, T, seed, name)
        self.keys, self.arrays, self.value = (key,), arrays, value
        for array in arrays:
            self._check_form(array)
        self._ends = np.cumsum([array.shape[0] for array in arrays], dtype=np.int64)
        self.sequences = int(self._ends[-1])
        self.tokens = self.sequences * T
        if self.sequences * int(np.prod(value.shape[1:], dtype=np.int64)) <= UP_FRONT:
            for first in range(0, self.sequences, ROWS_AT_ONCE):
                self.rows(np.arange(first, min(first + ROWS_AT_ONCE, self.sequences)))

    def rows(self, numbers: NDArray[np.int64]) -> Batch:
        of = np.searchsorted(self._ends, numbers, side="right")
        drawn: Array | None = None
        for number in np.unique(of):
            array, mine = self.arrays[number], of == number
            within = numbers[mine] - (int(self._ends[number - 1]) if number else 0)
            part = array.take(within.tolist())
            self._check(array, within, part)
            if drawn is None:
                drawn = np.empty((len(numbers), *part.shape[1:]), np.int32 if self.integer else part.dtype)
            drawn[mine] = part
        assert drawn is not None
        return {self.keys[0]: drawn}

    def val_batches(self, tokens: int, B: int | None = None, *, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        return val_rows(self, tokens, B or self.B, rank, ranks)

    def files(self) -> list[dict[str, Any]]:
        return [array.describe() for array in self.arrays]

    def check_unchanged(self) -> None:
        for array in self.arrays:
            array.check_unchanged()

    @property
    def integer(self) -> bool:
        return self.value.dtype not in (None, "acc")

    def _check_form(self, array: ArrayRows) -> None:
        kinds, words = ("iu", "integers") if self.integer else ("fiu", "numbers")
        if array.dtype.kind not in kinds:
            raise DataError(
                f"{self.name}: {array.name}: input {self.value.name} takes {words}, got {array.dtype}",
                hint="convert the array, for example with NumPy's astype",
            )
        if len(array.shape) < 1 or array.shape[1:] != tuple(self.value.shape[1:]):
            expected = ", ".join(["rows", *map(str, self.value.shape[1:])])
            raise DataError(
                f"{self.name}: {array.name}: expected ({expected}) for input {self.value.name}, got {array.shape}",
                hint=ENDS,
            )
        if not array.shape[0]:
            raise DataError(f"{self.name}: {array.name}: the array has no rows", hint="leave it out")

    def _check(self, array: ArrayRows, numbers: NDArray[np.int64], part: Array) -> None:
        """DataError for numbers that are not finite and integers outside of the input's bounds, with their row."""
        if not self.integer:
            bad, expected = ~np.isfinite(part) if part.dtype.kind == "f" else np.zeros(1, bool), "finite numbers"
        else:
            most = np.iinfo(np.int32).max if self.value.bound is None else self.value.bound - 1
            least = (
                0
                if self.value.bound is not None and not self.value.negative and self.keys[0] != TARGETS
                else np.iinfo(np.int32).min
            )
            bad, expected = (part < least) | (part > most), f"{least:,} to {most:,}"
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            place = ", ".join(map(str, (int(numbers[at[0]]), *at[1:])))
            raise DataError(
                f"{self.name}: {array.name}[{place}] is {part[at]}; input {self.value.name} takes {expected}",
                hint="fix the array, or remove the row",
            )
