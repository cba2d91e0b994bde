"""The folder of a checkpoint: its files, its manifest, and the steps of a run's checkpoints; no tensor is read."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from core.errors import CheckpointError
from core.outside import LINK, WAYS_OUT, read_whole, reads

FORMAT = 2  # of state.json and manifest.json where each rank wrote a file of the optimizer's state; newer is refused
ONE_FILE = 1  # the same where one process wrote all
STEP = re.compile(r"step_(\d{8,})")
STAGED, DOOMED = ".staged-", ".doomed-"  # prefixes of the remains of a killed save or removal
MODEL, OPTIMIZER, MODEL_TOML, TOKENIZER = "model.safetensors", "optimizer.safetensors", "model.toml", "tokenizer.json"
STATE, MANIFEST = "state.json", "manifest.json"
SHARD = re.compile(r"optimizer-(\d{5,8})-of-(\d{5,8})\.safetensors")
REQUIRED = (MODEL, OPTIMIZER, MODEL_TOML, STATE)  # those of ranks in place of OPTIMIZER


Count = Annotated[int, Meta(ge=0)]


class Versioned(Struct):
    """The fields that every version of the two files has."""

    format: int


class Entry(Struct, forbid_unknown_fields=True):
    """A file of the checkpoint."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Count


class Manifest(Struct):
    """A checkpoint's list of files: name -> size and digest."""

    files: dict[str, Entry]


Kind = TypeVar("Kind")


def shard_name(rank: int, ranks: int) -> str:
    """The file of a rank's slice of the optimizer's state; rank 0's is the first."""
    return f"optimizer-{rank + 1:05d}-of-{ranks:05d}.safetensors"


def optimizer_files(path: Path, manifest: Manifest) -> list[str]:
    """The files that hold the optimizer's state, in the order of ranks. CheckpointError unless they are a whole set."""
    shards = sorted(name for name in manifest.files if SHARD.fullmatch(name))
    ranks = len(shards)
    if shards != sorted(shard_name(rank, ranks) for rank in range(ranks)):
        raise CheckpointError(
            f"{path / MANIFEST}: damaged: {', '.join(shards[:4])}{', ...' * (ranks > 4)} are not all files of one save"
        )
    return [shard_name(rank, ranks) for rank in range(ranks)]


def folder_name(step: int) -> str:
    return f"step_{step:08d}"


def steps(checkpoints: Path) -> list[int]:
    """The steps that have a folder, newest first; whether it is valid is another question. A link is none."""
    if not os.path.isdir(checkpoints):  # Path's own question raises for a name that is too long
        return []
    folders = [STEP.fullmatch(p.name) for p in checkpoints.iterdir() if p.is_dir() and not p.is_symlink()]
    return sorted((int(m.group(1)) for m in folders if m), reverse=True)


def is_whole(path: Path) -> bool:
    """Whether all files are there in full length, without the cost of hashing them."""
    try:
        check_sizes(path, decode(path / MANIFEST, read(path / MANIFEST), Manifest))
    except CheckpointError:
        return False
    return True


def read(path: Path) -> bytes:
    with reads(CheckpointError, path):
        return read_whole(path, follow=False)


def decode(path: Path, raw: bytes, kind: type[Kind]) -> Kind:
    """One of the two JSON files. CheckpointError for another version, and for anything that is not as it must be."""
    try:
        version = msgspec.json.decode(raw, type=Versioned).format
        if version > FORMAT:
            raise CheckpointError(
                f"{path}: format {version}; this version reads up to {FORMAT}", hint="a newer corelm wrote it: update"
            )
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None


def check_sizes(path: Path, manifest: Manifest) -> None:
    states = [OPTIMIZER] if OPTIMIZER in manifest.files else optimizer_files(path, manifest) or [OPTIMIZER]
    required = [*states, *(name for name in REQUIRED if name != OPTIMIZER)]
    for name in required:
        if name not in manifest.files:
            raise CheckpointError(f"{path / MANIFEST}: damaged: it does not list {name}")
    for name, entry in manifest.files.items():
        if name not in (*required, TOKENIZER):
            raise CheckpointError(f"{path / MANIFEST}: entry {name!r} is not one of a checkpoint's files")
        if (path / name).is_symlink():
            raise CheckpointError(f"{path / name}: {LINK}", hint=WAYS_OUT[errno.ELOOP])
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != entry.bytes:
            came = "missing" if size is None else f"{size:,} bytes"
            raise CheckpointError(f"{path / name}: {came}, expected {entry.bytes:,} bytes: cut short or changed")
