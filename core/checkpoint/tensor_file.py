"""A safetensors file as a mapping; every size and offset is checked. The format: core.checkpoint.safetensors_file."""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from core.checkpoint.safetensors_file import DTYPES
from core.errors import CheckpointError
from core.held_files import Held
from core.outside import open_file, read_array, way_out

CHANGED = "the file was changed or removed after it was opened, as a run does that still trains: try again"
Array = np.ndarray[Any, Any]
LONGEST_HEADER = 1 << 25  # bytes; the largest known has a megabyte: a hostile length must not become an allocation
MOST_TENSORS = 100_000  # of a file; refused before its header becomes objects


class TensorFile(Mapping[str, Array]):
    """A safetensors file as a mapping: name -> read-only array in the mapped file, so that loading copies once.

    The header is checked when it is opened: CheckpointError names the file, the tensor, and the fault. BF16 and
    F16 become f32, all else is as stored. `shapes` and `metadata` need no reading of data.
    """

    def __init__(self, path: Path, held: Held | None = None) -> None:
        """held: the file, where it is open already, and may go while it is read."""
        self.path = path
        self._held = held
        self._entries: dict[str, tuple[str, tuple[int, ...], int]] = {}
        self.metadata: dict[str, str] = {}
        self._read_header()
        self.shapes = {name: shape for name, (_, shape, _) in self._entries.items()}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Array:
        kind, shape, start = self._entries[name]
        if not math.prod(shape):
            return np.empty(shape, np.float32 if kind in ("BF16", "F16") else DTYPES[kind].newbyteorder("="))
        try:
            place = DTYPES[kind], start, shape
            array = self._held.values(*place) if self._held else read_array(self.path, *place)
        except OSError as error:
            problem = f'tensor "{name:.100}" cannot be read: {error.strerror or error}'
            raise CheckpointError(f"{self.path}: {problem}", hint=CHANGED) from None
        return widened(kind, array)

    def place(self, name: str) -> tuple[np.dtype[Any], int, tuple[int, ...], Callable[[Array], Array]]:
        """A tensor's dtype in the file, the offset of its bytes, its shape, and the function from numbers of that dtype
        to those of the mapping."""
        kind, shape, start = self._entries[name]
        return DTYPES[kind], start, shape, partial(widened, kind)

    def release(self) -> None:
        """Let the file go: a checkpoint that is removed takes its room for as long as it is open."""
        if self._held is not None:
            self._held.release()

    def _read_header(self) -> None:
        try:
            with self._held.opened() if self._held else open_file(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                first = file.read(8)
                if len(first) < 8:
                    raise self._bad(f"{len(first)} bytes: too short for a header")
                (length,) = struct.unpack("<Q", first)
                if length > size - 8:
                    raise self._bad(f"the header claims {length:,} bytes, the file has {size:,}")
                if length > LONGEST_HEADER:
                    raise self._bad(f"its header has {length:,} bytes; at most {LONGEST_HEADER:,} are read")
                text = file.read(length)
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be read: {error.strerror or error}", hint=way_out(error)
            ) from None
        if (count := max(text.count(b"{"), text.count(b"[") // 2)) > MOST_TENSORS + 2:
            raise self._bad(f"its header describes {count:,} tensors or more; at most {MOST_TENSORS:,} are read")
        try:
            header = json.loads(text.decode(), object_pairs_hook=self._without_duplicates)
        except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError too
            raise self._bad("the header is not JSON") from None
        if not isinstance(header, dict):
            raise self._bad("the header is not a JSON object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise self._bad("__metadata__ is not a table of strings")
        self.metadata = metadata
        self._place(header, 8 + length, size)

    def _place(self, header: dict[str, Any], start: int, size: int) -> None:
        """Fill `_entries`: the tensors must follow one another and fill the file."""
        spans: list[tuple[int, int, str]] = []
        for name, entry in header.items():
            kind, shape, begin, end = self._entry(name, entry)
            if end - begin != math.prod(shape) * DTYPES[kind].itemsize:
                raise self._bad(f'tensor "{name:.100}": {kind} {list(shape)} does not take {end - begin:,} bytes')
            spans.append((begin, end, name))
            self._entries[name] = (kind, shape, start + begin)
        position = 0
        for begin, end, name in sorted(spans):
            if begin != position:
                raise self._bad(f'tensor "{name:.100}" starts at byte {begin:,} of the data, expected {position:,}')
            position = end
        if start + position != size:
            raise self._bad(f"{size:,} bytes, and its header describes {start + position:,}: cut short or extended")

    def _entry(self, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._bad(f'tensor "{name:.100}" must have dtype, shape and data_offsets')
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in DTYPES:
            raise self._bad(f'tensor "{name:.100}" has dtype {kind!r:.100}; expected one of {", ".join(DTYPES)}')
        if not isinstance(shape, list) or not all(_is_size(n) for n in shape) or len(shape) > 16:
            raise self._bad(f'tensor "{name:.100}" has shape {shape!r:.200}')
        if math.prod(n for n in shape if n) >= 2**48:  # one without elements too: NumPy multiplies the others
            raise self._bad(f'tensor "{name:.100}" has shape {shape!r:.200}, more than any file holds')
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
            raise self._bad(f'tensor "{name:.100}" has data_offsets {offsets!r:.100}')
        return kind, tuple(shape), offsets[0], offsets[1]

    def _without_duplicates(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            raise self._bad(f'"{twice:.100}" is in the header twice')
        return table

    def _bad(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: not a valid safetensors file: {why}",
            hint="checkpoints are safetensors only; a .pt, .npz or pickle file is never read",
        )


def widened(kind: str, array: Array) -> Array:
    """Stored numbers of a kind in the machine's byte order, BF16 and F16 as f32."""
    if kind == "BF16":  # the upper half of an f32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if kind == "F16" else array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_size(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**62
