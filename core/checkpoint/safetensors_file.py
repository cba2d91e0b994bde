"""Tensors in a safetensors file: a writer that streams and hashes. Its reader: core.checkpoint.tensor_file.

The format (https://huggingface.co/docs/safetensors): 8 bytes, the length n of the header; n bytes of JSON, name ->
dtype, shape, [begin, end) in the data; then the data, little-endian, without gaps. The library's own writer wants
all bytes in memory and does not sync; this one holds some chunks at a time and returns the file's sha256, computed
beside the writing. Nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, BinaryIO

import numpy as np

from core import files

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
WRITTEN = {dtype: name for name, dtype in DTYPES.items()}  # 16-bit integers are bf16's bits

CHUNK = 1 << 22  # bytes of one write
BEHIND = 128  # chunks by which the hash may lag, so that it also works while the disk does; they are kept alive
THREADS = 2  # of a file: one hashes, one syncs


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
    them needs memory for one at a time; one with `outline(name)` gives that for the shape. Raises OSError when the disk
    does.
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
    outline = getattr(tensors, "outline", tensors.__getitem__)
    for name in tensors:
        tensor = outline(name)
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
