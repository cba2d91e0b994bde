"""A folder of inputs for `core`, each of which a test puts at fault: a config, a model, a plugin, a shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import small_run

CONFIG = small_run.config(train={"steps": 1}, schedule={"name": "cosine", "warmup": 2})
MODEL = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "logits"
loss   = "loss"
[dims]
B = 2
T = 16
S = 32
V = 257
C = 16
H = 2
L = 1
[graph]
wte    = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
h      = { block = "layer", in = "wte", repeat = "L" }
ln_f   = { op = "layernorm", in = "h" }
logits = { op = "matmul", in = "ln_f", features = "V", bias = false, tie = { weight = "wte.weight" } }
loss   = { op = "cross_entropy", in = ["logits", "targets"], classes = "V" }
[block.layer]
in  = "x"
out = "y"
qkv  = { op = "matmul", in = "x", features = "3*C" }
attn = { op = "attention", in = "qkv", heads = "H" }
y    = { op = "add", in = ["x", "attn"] }
"""
PLUGIN = """
from core import Op, Reference, Variant

half = Op("half", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (2, 3)}])


class HalfReference(Reference):
    op = "half"

    def forward(self, t):
        t.y[...] = t.x / 2

    def backward(self, t):
        t.add("dx", t.dy / 2)


def core_ops():
    return [half]


def core_variants():
    return [HalfReference]
"""
TRAIN = ("train", "run.toml", "--device", "cpu", "--quiet")
Core = Callable[..., str]


def files(folder: Path) -> dict[str, bytes]:
    paths = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def write(name: str, text: str, *changes: tuple[str, str]) -> None:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def use_model(*changes: tuple[str, str]) -> None:
    """run.toml with a model of its own."""
    write("m.toml", MODEL, *changes)
    write("run.toml", CONFIG, ('"gpt2_124m"', '"m.toml"'))


def shard(
    name: str,
    tokens: object = np.arange(400) % 250,
    *,
    magic: int = 20240520,
    version: int = 1,
    count: int | None = None,
) -> bytes:
    ids = np.asarray(tokens)
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(ids) if count is None else count
    data = header.tobytes() + ids.astype("<u2").tobytes()
    Path(name).write_bytes(data)
    return data


def train_on(data: str, **more: str) -> None:
    write("run.toml", CONFIG, ('"text.txt"', data), ('val = "val.txt"\n', ""), *more.items())
