"""A good run config, one that is refused, and one that loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import (
    load_config,
)
from core.errors import UsageError

GOOD = """
model = "gpt2_124m"
[dims]
B = 4
T = 64
[data]
train = "a.txt"
val = ["b.txt", "c/*.txt"]
[train]
steps = 10
tokens_per_step = 512
[optimizer]
name = "adamw"
lr = 3e-4
betas = [0.9, 0.95]
[schedule]
name = "cosine"
warmup = 2
"""


def refused(path: str | Path, *overrides: str, device: str = "cpu") -> str:
    with pytest.raises(UsageError) as caught:
        load_config(path, overrides=overrides, device=device)
    return str(caught.value)


def loaded(path: str | Path, *overrides: str, device: str = "cpu"):
    return load_config(path, overrides=overrides, device=device)
