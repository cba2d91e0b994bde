"""The config of a run of seconds, changed table by table: a GPT-2 of one layer of 16 channels on a text's bytes."""

from __future__ import annotations

from typing import Any

import tomli_w

BASE: dict[str, Any] = {
    "model": "gpt2_124m",
    "dims": {"V": 257, "C": 16, "H": 2, "L": 1, "S": 32, "B": 2, "T": 16},
    "data": {"train": "text.txt", "val": "val.txt", "tokenizer": "bytes"},
    "train": {"steps": 6, "tokens_per_step": 64},
    "optimizer": {"name": "adamw", "lr": 1e-2},
    "schedule": {"name": "constant"},
}


def config(**changes: Any) -> str:
    """BASE as TOML, with `changes` merged into its tables; a value of None takes a key away."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in BASE.items()}
    for table, value in changes.items():
        if isinstance(value, dict):
            held = {**merged.get(table, {}), **value}
            merged[table] = {key: item for key, item in held.items() if item is not None}
        else:
            merged[table] = value
    return tomli_w.dumps(merged)
