"""Training data that is no token shard, damaged, changed, too little, or of another vocabulary: the errors."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.data.magics import FILES
from core.errors import DataError, UsageError, did_you_mean

AGAIN = "fetch or write it again"


def no_shard(
    path: Path, status: os.stat_result, size_of_header: int, header: tuple[int, int, int], formats: Sequence[Any]
) -> DataError:
    """The error for a path. header: magic number, version and count in it; formats: those of shards."""
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
        f"{path}: {problem}: its header has {stated % 2**32:,} tokens, so expected {expected:,} bytes, got {size:,}",
        hint=AGAIN,
    )


def cut_short(path: Path, size: int, tokens: tuple[int, int], end: int) -> DataError:
    """The error for a shard that ends within the tokens that a run draws."""
    return DataError(
        f"{path}: ends at byte {size:,}; tokens {tokens[0]:,} to {tokens[1]:,} end at byte {end:,}: the "
        "file became shorter after the run began",
        hint="write it again, then continue with --resume",
    )


def differs(path: Path, start: int, stop: int) -> DataError:
    """The error for bytes that are not those of their recorded digest."""
    return DataError(
        f"{path}: bytes {start:,} to {stop:,} differ from their recorded sha256, while the file's times are unchanged",
        hint="fetch or write it again, and check the disk: it may lose more",
    )


def changed(path: Path) -> DataError:
    """The error for a shard that became another file during the run."""
    return DataError(
        f"{path}: changed during the run: its sha256 is not that of the first reading",
        hint="restore it and continue with --resume; --allow-data-change takes the files as they are",
    )


def too_few(name: str, tokens: int, needed: int, batch: tuple[int, int] | None) -> DataError:
    """The error for too few tokens. batch: B and T, where these make the need."""
    why = f" (B * T + 1 = {batch[0]} * {batch[1]} + 1)" if batch is not None else ""
    return DataError(
        f"{name}: expected at least {needed:,} tokens{why}, got {tokens:,}",
        hint="name more data, or lower B or T in [dims]",
    )


def wrong_weights(where: str, weights: Mapping[str, float], names: Sequence[str]) -> UsageError:
    """The error for weights of other names than those of the training data."""
    spare, missing = ([n for n in own if n not in other] for own, other in ((weights, names), (names, weights)))
    if spare:
        return UsageError(
            f'{where}: "{spare[0]}" is not a name of [data] train{did_you_mean(spare[0], names)}',
            hint="a weight has its name exactly as the list has it",
        )
    return UsageError(f'{where}: "{missing[0]}" has no weight', hint="give each name of [data] train one, or none")


def no_sequence(name: str, T: int) -> DataError:
    """The error for shards of which none holds a sequence."""
    return DataError(
        f"{name}: no shard holds the {T + 1:,} tokens of one sequence", hint="join the shards, or lower T in [dims]"
    )


def foreign_id(name: str, vocab: int, token: int, at: int, byte: int) -> DataError:
    """The error for an id beyond the model's vocabulary, at a token and byte of a shard."""
    return DataError(
        f"{name}: expected ids below the model's vocabulary of {vocab:,}, "
        f"got {token:,} at token {at:,} (byte {byte:,})",
        hint="the shard is damaged, or was made with another tokenizer than the model is for",
    )
