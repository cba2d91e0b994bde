"""Why a file is no token shard, or a damaged one, in words."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.data.magics import FILES
from core.errors import DataError

AGAIN = "fetch or write it again"


def no_shard(
    path: Path, status: os.stat_result, size_of_header: int, header: tuple[int, int, int], formats: Sequence[Any]
) -> DataError:
    """The error for a path. header: magic number, version and count in it; formats: what a shard may be."""
    if stat.S_ISDIR(status.st_mode):
        return DataError(
            f"{path}: expected a token shard, got a folder", hint=f'write "{path}/*.bin" for the shards in it'
        )
    if not stat.S_ISREG(status.st_mode):
        return DataError(f"{path}: expected a token shard, got a pipe or a device", hint="save it in a file first")
    size, (magic, version, stated) = status.st_size, header
    if size < size_of_header:
        return DataError(f"{path}: expected a header of {size_of_header} bytes, the file has {size}", hint=AGAIN)
    format = next((f for f in formats if f.magic == magic), None)
    if format is None and magic in FILES:
        return DataError(f"{path}: expected a token shard, got {FILES[magic]} of llm.c", hint="name token shards here")
    if format is None:
        raw_hint = f"`core data prepare {path} --raw uint16 --out FOLDER` converts it"
        return DataError(
            f"{path}: expected a token shard with magic number "
            f"{', '.join(f'{f.magic} ({f.name})' for f in formats)}, got {magic}",
            hint=f"a headerless file, as nanoGPT writes: {raw_hint}",
        )
    if version != format.version:
        return DataError(
            f"{path}: expected version {format.version} of a {format.name} shard, got {version}",
            hint="write it again with `core data prepare`",
        )
    expected = size_of_header + stated % 2**32 * format.dtype.itemsize
    if size == expected:
        return DataError(f"{path}: the shard has zero tokens", hint="leave it out, or write it again")
    problem = "truncated" if size < expected else "too long"
    return DataError(
        f"{path}: {problem}: the header says {stated % 2**32:,} tokens, so expected {expected:,} bytes, got {size:,}",
        hint=AGAIN,
    )
