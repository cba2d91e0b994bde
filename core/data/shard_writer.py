"""Writing token shards: files of ids after a header, each with its two sidecars."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from core.data.digests import read_digests
from core.data.shards import (
    HEADER_BYTES,
    MOST_TOKENS,
    SHARD_TOKENS,
    Format,
    header_of,
    json_sidecar,
    sha256_sidecar,
)
from core.errors import DataError


class ShardWriter:
    """Writes tokens to `<stem>_000000.bin`, `_000001.bin`, ... in a folder, each with its two sidecars.

    The shards are whole only after `close` (the end of a `with` block): write into a staged folder.
    """

    def __init__(
        self, folder: Path, stem: str, format: Format, record: dict[str, Any], *, shard_tokens: int = SHARD_TOKENS
    ):
        if not 0 < shard_tokens <= MOST_TOKENS:
            raise DataError(
                f"a shard holds 1 to {MOST_TOKENS:,} tokens, got {shard_tokens:,}", hint="write more shards"
            )
        self.paths: list[Path] = []
        self.tokens = 0
        self._folder, self._stem, self._format, self._record = folder, stem, format, record
        self._limit = shard_tokens
        self._file: BinaryIO | None = None
        self._count = 0

    def write(self, tokens: NDArray[Any]) -> None:
        """Append ids (n,) of any integer type; they must fit the format."""
        while tokens.size:
            if self._file is None or self._count == self._limit:
                self._finish()
                self._start()
            assert self._file is not None
            part, tokens = tokens[: self._limit - self._count], tokens[self._limit - self._count :]
            self._file.write(np.ascontiguousarray(part, dtype=self._format.dtype).data)
            self._count += part.size
            self.tokens += part.size

    def close(self) -> None:
        self._finish()

    def _start(self) -> None:
        path = self._folder / f"{self._stem}_{len(self.paths):06d}.bin"
        self.paths.append(path)
        self._file = path.open("wb")
        self._file.write(bytes(HEADER_BYTES))
        self._count = 0

    def _finish(self) -> None:
        if self._file is None:
            return
        self._file.seek(0)
        self._file.write(header_of(self._format, self._count))
        self._file.close()
        self._file = None
        path = self.paths[-1]
        digests = read_digests(path)
        sha256_sidecar(path).write_text(f"{digests.sha256}  {path.name}\n", "utf-8", newline="\n")
        record = {**self._record, "tokens": self._count, "mib_sha256": digests.blocks}
        json_sidecar(path).write_text(json.dumps(record, indent=2) + "\n", "utf-8")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()


def write_shards(
    chunks: Iterable[NDArray[Any]],
    folder: Path,
    stem: str,
    format: Format,
    record: dict[str, Any],
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> list[Path]:
    """All chunks as shards in `folder`; returns their paths."""
    with ShardWriter(folder, stem, format, record, shard_tokens=shard_tokens) as writer:
        for chunk in chunks:
            writer.write(chunk)
    return writer.paths
