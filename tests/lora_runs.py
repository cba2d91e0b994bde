"""A GPT-2 of two layers, trained for a few steps, and LoRA on top of its weights: the files, and the runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import small_run

from core import cli

BASE = """
extends = "gpt2_124m"
[dims]
V = 257
C = 16
H = 2
L = 2
S = 32
T = 16
B = 2
"""
LORA = """
extends = "base.toml"
[adapt.lora]
match = ["h.*.qkv", "h.1.down"]
rank = 4
alpha = 8
dropout = 0.1
"""
TRAIN = {"steps": 3, "tokens_per_step": 64}
RUN: dict[str, Any] = {"model": "lora.toml", "dims": None, "weights": "base", "new": ["*.lora_*"]}
ONLY = {"train": {**TRAIN, "only": ["*.lora_*"]}, "optimizer": {"lr": 0.1}}


def write(folder: Path) -> None:
    """The models, and the configs base_run.toml and lora_run.toml."""
    (folder / "base.toml").write_text(BASE)
    (folder / "lora.toml").write_text(LORA)
    small_run.write(folder, small_run.unwatched(model="base.toml", dims=None, train=TRAIN), "base_run.toml")
    (folder / "lora_run.toml").write_text(small_run.unwatched(**RUN, **ONLY))


def train(config: str, *words: str) -> int:
    """The exit code of a run on the cpu."""
    return cli.run(["train", config, "--device", "cpu", "--long", *words])
