"""Token shards: files of token ids after a header of 256 int32, as llm.c writes and reads them.

GPT-2's hold uint16, LLaMA-3's uint32, little-endian. A shard is checked when it is opened, and read where tokens are
drawn. Beside a shard that `core data prepare` wrote are `<shard>.sha256` (as sha256sum writes it) and
`<shard>.json` (its tokenizer, and a digest of each MiB). nanoGPT's headerless files are refused here;
`core data prepare --raw` converts them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.digests import BLOCK, Blocks, Digests, file_digests, mark_of, read_digests
from core.data.magics import GPT2_SHARD, LLAMA3_SHARD
from core.errors import DataError
from core.outside import named, open_file, parse_json, read_whole, reads

Tokens = NDArray[np.unsignedinteger[Any]]

HEADER_BYTES = 1024
SHARD_TOKENS = 100_000_000  # as in the published FineWeb shards: 200 MB of uint16
MOST_TOKENS = 2**31 - 1  # the header's count is an int32, and other readers take it for one
SAMPLES, SAMPLE_BYTES = 64, 4096
LARGEST_SIDECAR = 1 << 20  # bytes


@dataclass(frozen=True)
class Format:
    """One kind of shard. `tokenizer` is the promise of its magic number, in the absence of a record."""

    name: str
    magic: int
    version: int
    dtype: np.dtype[Any]
    tokenizer: str | None


FORMATS = (
    Format("GPT-2", GPT2_SHARD, 1, np.dtype("<u2"), "gpt2"),
    Format("LLaMA-3", LLAMA3_SHARD, 7, np.dtype("<u4"), None),
)


def format_for(vocab_size: int) -> Format:
    """The narrowest format that holds ids below `vocab_size`."""
    return FORMATS[0] if vocab_size <= 2**16 else FORMATS[1]


@dataclass(frozen=True)
class Shard:
    """A checked shard on disk."""

    path: Path
    format: Format
    count: int  # tokens

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self) -> Tokens:
        """All tokens, read into memory: (count,) uint16 or uint32."""
        with self.reader() as reader:
            return reader[: self.count]

    def reader(self, blocks: Blocks | None = None) -> Reader:
        """The open file. blocks: recorded hashes of its contents; without them, nothing is compared."""
        return Reader(self, blocks)

    def digests(self) -> Digests:
        """Digests of the whole file and of its blocks: those of its sidecar, else those of the file at its first
        hash."""
        return recorded_digests(self.path) or file_digests(self.path)

    def byte_offset(self, token: int) -> int:
        """The byte offset of a token in the file."""
        return HEADER_BYTES + token * self.format.dtype.itemsize

    def describe(self) -> dict[str, Any]:
        """Identity for a resume: size and contents, independent of the folder."""
        size = self.count * self.format.dtype.itemsize
        with self.reader() as reader, reads(DataError, self.path):
            quick = quick_hash(size, lambda at: reader.bytes_at(HEADER_BYTES + at, SAMPLE_BYTES))
            whole = file_digests(self.path).sha256
        return {"file": self.path.name, "tokens": self.count, "bytes": size, "hash": quick, "sha256": whole}


class Reader:
    """A shard's open file: `reader[a:b]` reads tokens a .. b, and compares each MiB with its digest at its first read.

    Nothing is mapped: a file that becomes shorter is a DataError with its name, not the end of the process.
    """

    def __init__(self, shard: Shard, blocks: Blocks | None) -> None:
        self.shard = shard
        self._blocks = blocks
        with reads(DataError, shard.path):
            self._file = shard.path.open("rb", buffering=0)
            with named(shard.path):
                self.mark = mark_of(self._file.fileno())

    def __len__(self) -> int:
        return self.shard.count

    def __getitem__(self, part: slice) -> Tokens:
        start, stop, _ = part.indices(self.shard.count)
        stop = max(start, stop)
        dtype = self.shard.format.dtype
        first, last = self.shard.byte_offset(start), self.shard.byte_offset(stop)
        bad = self._blocks.check(self.bytes_at, first, last) if self._blocks is not None and stop > start else None
        raw = self.bytes_at(first, last - first)
        if len(raw) < last - first or bad is not None:
            from core.data.data_faults import cut_short, differs

            if len(raw) < last - first:
                raise cut_short(self.shard.path, os.fstat(self._file.fileno()).st_size, (start, stop), last)
            raise differs(self.shard.path, (bad or 0) * BLOCK, ((bad or 0) + 1) * BLOCK)
        return np.frombuffer(raw, dtype)

    def bytes_at(self, start: int, count: int) -> bytes:
        """Up to `count` bytes of the file from `start`; fewer at its end. DataError where it cannot be read."""
        parts, have = [], 0
        with reads(DataError, self.shard.path):
            self._file.seek(start)
            while have < count and (part := self._file.read(count - have)):
                parts.append(part)
                have += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def quick_hash(size: int, sample: Callable[[int], bytes]) -> str:
    """The hash of checkpoints before they had a sha256: of the size and of 64 samples, evenly spaced, sample(at)."""
    hasher = hashlib.sha256(str(size).encode())
    last = max(0, size - SAMPLE_BYTES)
    for at in sorted({last * i // (SAMPLES - 1) for i in range(SAMPLES)}):
        hasher.update(sample(at))
    return hasher.hexdigest()[:32]


def header_of(format: Format, count: int) -> bytes:
    """The first bytes of a shard."""
    header = np.zeros(256, "<i4")
    header[:3] = format.magic, format.version, count
    return header.tobytes()


def open_shard(path: Path) -> Shard:
    """Compare a shard's header with its size. DataError names the file, the expected size and the actual one."""
    with reads(DataError, path):
        status = path.stat()
        raw = b""
        if stat.S_ISREG(status.st_mode):
            with open_file(path) as file:
                raw = file.read(HEADER_BYTES)
    magic, version, stated = (int(n) for n in np.frombuffer(raw[:12].ljust(12, b"\0"), "<i4"))
    format = next((f for f in FORMATS if (f.magic, f.version) == (magic, version)), None)
    count, rest = divmod(status.st_size - HEADER_BYTES, format.dtype.itemsize if format is not None else 1)
    # beyond int32 the stated count wraps; the file's size has the rest
    if format is None or len(raw) < HEADER_BYTES or rest or count % 2**32 != stated % 2**32 or count == 0:
        from core.data.data_faults import no_shard

        raise no_shard(path, status, HEADER_BYTES, (magic, version, stated), FORMATS)
    return Shard(path, format, count)


def sha256_sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def json_sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def recorded_sha256(path: Path) -> str | None:
    """The hash in a shard's sidecar, or None when it has no sidecar."""
    sidecar = sha256_sidecar(path)
    if not sidecar.exists():
        return None
    try:
        text = read_whole(sidecar, LARGEST_SIDECAR).decode("utf-8", "replace").split()
    except OSError as error:
        raise DataError(f"{sidecar}: cannot be read: {error.strerror or error}", hint="remove it") from None
    if not text or len(text[0]) != 64 or not set(text[0].lower()) <= set("0123456789abcdef"):
        raise DataError(
            f"{sidecar}: expected a sha256 in hexadecimal",
            hint=f"remove it, or write it again with sha256sum {path.name}",
        )
    return text[0].lower()


def verify_shard(path: Path, *, always: bool = False) -> bool:
    """True if the contents have the sidecar's hash, False if there is no sidecar; DataError if they differ.

    The hash of an unchanged file (by size, times and inode) is remembered, unless `always`: a run compares
    its reads, block by block, too.
    """
    expected = recorded_sha256(path)
    if expected is None:
        return False
    got = (read_digests if always else file_digests)(path).sha256
    if got != expected:
        raise DataError(
            f"{path}: changed since it was written: expected sha256 {expected[:16]}..., got {got[:16]}...",
            hint=f"fetch or write it again; if the change is wanted, remove {sha256_sidecar(path).name}",
        )
    return True


def recorded_digests(path: Path) -> Digests | None:
    """The digests in a shard's two sidecars, or None where they do not hold one for each of its blocks."""
    whole, value = recorded_sha256(path), _sidecar(path)
    blocks = value.get("mib_sha256")
    if whole is None or not isinstance(blocks, list) or not all(isinstance(block, str) for block in blocks):
        return None
    return Digests(whole, tuple(blocks)) if len(blocks) == -(-path.stat().st_size // BLOCK) else None


def _sidecar(path: Path) -> dict[str, Any]:
    """The object in a shard's JSON sidecar, {} where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        value = parse_json(read_whole(json_sidecar(path), LARGEST_SIDECAR))
        return value if isinstance(value, dict) else {}
    return {}
