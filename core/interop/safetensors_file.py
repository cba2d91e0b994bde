"""Tensors in a safetensors file: a writer that streams and hashes, a reader that trusts nothing.

The format (https://huggingface.co/docs/safetensors): 8 bytes, the length n of the header; n bytes of JSON, name ->
dtype, shape, [begin, end) in the data; then the data, little-endian, without gaps. The library's own writer wants
all bytes in memory and does not sync; this one holds some chunks at a time and returns the file's sha256, computed
beside the writing. Nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, BinaryIO

import numpy as np

from core import files
from core.errors import CheckpointError
from core.files import Held
from core.outside import open_file, read_array, way_out

CHANGED = "the file was changed or removed after it was opened, as a run does that still trains: try again"
Array = np.ndarray[Any, Any]

# safetensors name -> layout of the bytes. BF16 is read as 16-bit integers and widened.
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "BOOL": np.dtype("?"),
}
WRITTEN = {dtype: name for name, dtype in DTYPES.items() if name != "F16"}  # 16-bit integers are bf16's bits

CHUNK = 1 << 22  # bytes of one write
BEHIND = 128  # chunks by which the hash may lag, so that it also works while the disk does; they are kept alive
THREADS = 2  # of a file: one hashes, one syncs
LONGEST_HEADER = 1 << 25  # bytes; the largest known has a megabyte: a hostile length must not become an allocation
MOST_TENSORS = 100_000  # of a file; refused before its header becomes objects


@dataclass(frozen=True)
class Written:
    """A file whose bytes are with the system, and on their way to the disk."""

    hashed: Future[str]
    synced: Future[None]

    def sha256(self) -> str:
        """Waits until all is on the disk. Raises OSError when the disk does."""
        self.synced.result()
        return self.hashed.result()


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """Write `tensors`, of any shape and dtype, to a new file, in their order, synced; the sha256 of the file (hex).

    Each tensor is looked up twice, once for its shape and once for its contents, so that a mapping that computes
    them needs memory for one at a time. Raises OSError when the disk does.
    """
    with ThreadPoolExecutor(THREADS, "core-save") as pool:
        return start_tensors(path, tensors, metadata, pool).sha256()


def start_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str], pool: Executor) -> Written:
    """`write_tensors` up to the point where the disk is waited for, so that another file can be written meanwhile.

    Tensors are looked up in this thread, as a device wants it. `pool` needs THREADS threads for each file.
    """
    file = files.create(path)
    chunks: Queue[bytes | memoryview | None] = Queue(BEHIND)
    hashed = pool.submit(_hash, chunks)
    try:
        for chunk in _contents(tensors, metadata):
            chunks.put(chunk)
            files.write(file, path, chunk)
    except BaseException:
        file.close()
        raise
    finally:
        chunks.put(None)
    return Written(hashed, pool.submit(_sync, file, path))


def _hash(chunks: Queue[bytes | memoryview | None]) -> str:
    digest = hashlib.sha256()
    while (chunk := chunks.get()) is not None:
        digest.update(chunk)  # releases the interpreter, as the write does
    return digest.hexdigest()


def _sync(file: BinaryIO, path: Path) -> None:
    with file:
        files.sync(file, path)


def _contents(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name in tensors:
        tensor = tensors[name]
        end = position + tensor.nbytes
        kind = WRITTEN[tensor.dtype.newbyteorder("<") if tensor.dtype.byteorder != "|" else tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data starts on 8 bytes, so that it can be mapped
    yield struct.pack("<Q", len(text)) + text
    for name in tensors:
        yield from _chunks(tensors[name])


def _chunks(tensor: Array) -> Iterator[memoryview]:
    """The little-endian bytes of `tensor`. One that is a view with gaps (cut padding) is copied a chunk at a time."""
    if not tensor.size:
        return
    ordered = tensor.reshape(1) if tensor.ndim == 0 else tensor
    if not ordered.flags.c_contiguous:
        rows = max(1, CHUNK // max(1, ordered[:1].nbytes))
        for start in range(0, len(ordered), rows):
            yield from _chunks(np.ascontiguousarray(ordered[start : start + rows]))
        return
    little = ordered.astype(ordered.dtype.newbyteorder("<"), copy=False)
    raw = little.reshape(-1).view(np.uint8).data
    for start in range(0, raw.nbytes, CHUNK):
        yield raw[start : start + CHUNK]


class TensorFile(Mapping[str, Array]):
    """A safetensors file as a mapping: name -> read-only array in the mapped file, so that loading copies once.

    The header is checked when it is opened: CheckpointError names the file, the tensor, and the fault. BF16 and
    F16 come as f32, all else as stored. `shapes` and `metadata` are known without reading data.
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
            what = f'tensor "{name:.100}" cannot be read: {error.strerror or error}'
            raise CheckpointError(f"{self.path}: {what}", hint=CHANGED) from None
        if kind == "BF16":  # the upper half of an f32
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(np.float32) if kind == "F16" else array.astype(array.dtype.newbyteorder("="), copy=False)

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


def _is_size(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**62
