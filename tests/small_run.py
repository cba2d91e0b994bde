"""The config of a run of seconds, changed table by table: a GPT-2 of one layer of 16 channels on a text's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
OTHER_TEXT = "a lazy fox is no quick dog. " * 8
BASE: dict[str, Any] = {
    "model": "gpt2_124m",
    "dims": {"V": 257, "C": 16, "H": 2, "L": 1, "S": 32, "B": 2, "T": 16},
    "data": {"train": "text.txt", "val": "val.txt", "tokenizer": "bytes"},
    "train": {"steps": 6, "tokens_per_step": 64},
    "optimizer": {"name": "adamw", "lr": 1e-2},
    "schedule": {"name": "constant"},
}
UNWATCHED: dict[str, Any] = {"data": {"val": None}, "train": {"val_every": 0, "sample_every": 0}}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with its tables changed key by key; a value of None is kept, and takes a key away in the end."""
    both = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in changes.items():
        both[key] = {**(both.get(key) or {}), **value} if isinstance(value, dict) else value
    return both


def config(**changes: Any) -> str:
    """BASE as TOML, with `changes` merged into its tables; a value of None takes a key or a table away."""
    tables = {key: value for key, value in merged(BASE, changes).items() if value is not None}
    return tomli_w.dumps(
        {k: {n: v for n, v in t.items() if v is not None} if isinstance(t, dict) else t for k, t in tables.items()}
    )


def unwatched(**changes: Any) -> str:
    """The `config` of a run that only trains: without validation and samples."""
    return config(**merged(UNWATCHED, changes))


def write(folder: Path, text: str | None = None, name: str = "small.toml") -> None:
    """A config (BASE as it is, by default) and the two texts that it trains and validates on, into a folder."""
    (folder / name).write_text(config() if text is None else text)
    (folder / "text.txt").write_text(TEXT)
    (folder / "val.txt").write_text(OTHER_TEXT)
