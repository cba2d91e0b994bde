"""Shards written by hand, and a stand-in for `[data]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from core.cli.data import command
from core.data import open_data

DIMS = {"B": 2, "T": 8, "V": 300}


@dataclass
class Config:
    """A stand-in for `[data]`."""

    train: str | list[str]
    val: str | list[str] = field(default_factory=list)
    tokenizer: str | list[str] = "bytes"
    vocab_size: int = 300


def write_shard(path: Path, tokens, magic=20240520, version=1, dtype="<u2", count=None) -> Path:
    tokens = np.asarray(tokens)
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, tokens.size if count is None else count
    path.write_bytes(header.tobytes() + tokens.astype(dtype).tobytes())
    return path


def tokens_of(path: Path, **changes) -> list[int]:
    data = open_data(Config(str(path), **changes), dims={"B": 1, "T": 1, "V": 300})
    return np.concatenate([piece.open() for piece in data.train.pieces]).tolist()


def pieces(*counts: int) -> list[np.ndarray]:
    """Arrays whose ids are all different."""
    ends = np.cumsum(counts)
    return [np.arange(end - count, end) for count, end in zip(counts, ends, strict=True)]


def prepare_shards(folder: Path, *args: str):
    return CliRunner().invoke(command, ["prepare", "--out", str(folder), *args])
