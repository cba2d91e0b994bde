"""Measurements of pictures that need training, kept in measured.json: `python -m core.plugins.course.pictures.measured`
writes the file in some seconds. Tests hold the pictures' statements about it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import core
from core.cli import run

FILE = Path(__file__).with_name("measured.json")
LETTERS, DIGITS, STEPS, ROWS = "abcdef", 10, 250, 32


def notes(rng: np.random.Generator) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(texts, ids, targets) of a row: each letter gets a digit, such as "b=7", then questions follow, such as "b?"."""
    order, questions = rng.permutation(len(LETTERS)), rng.permutation(len(LETTERS))
    digit = rng.integers(0, DIGITS, len(LETTERS))
    texts = [*(f"{LETTERS[i]}={digit[i]}" for i in order), *(f"{LETTERS[i]}?" for i in questions)]
    ids = np.concatenate([order * DIGITS + digit[order], len(LETTERS) * DIGITS + questions])
    return texts, ids, np.concatenate([np.full(len(LETTERS), -1), digit[questions]])


def attention() -> dict[str, Any]:
    """The shares of the one head of a one-layer GPT-2 that learned to answer such rows: tokens, and a row of percents
    for each."""
    length = 2 * len(LETTERS)
    dims = {"B": ROWS, "T": length, "S": length, "V": len(LETTERS) * (DIGITS + 1), "C": 64, "H": 1, "L": 1}
    model = core.load("gpt2_124m", dims=dims, optimizer="adamw", fuse=True)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        rows = [notes(rng) for _ in range(ROWS)]
        ids, targets = (np.stack([row[part] for row in rows]) for part in (1, 2))
        loss = model.step(ids, targets, lr=2e-3 * min(1, (step + 1) / 20, (STEPS - step) / 100)).loss
    texts, one, _ = notes(np.random.default_rng(7))
    (shares,) = model.maps(one[None])["h.0.attn"].values()
    percents = [[round(float(100 * p), 1) for p in row[: i + 1]] for i, row in enumerate(shares[0, 0])]
    return {"steps": STEPS, "loss": round(float(loss), 3), "tokens": texts, "shares": percents}


# the five runs of lesson 7: lr, warm-up, eps; the others differ from "a" in one number
RUNS = {
    "a": (0.01, 5, 1e-8), "b": (3.0, 5, 1e-8), "c": (1e-6, 5, 1e-8), "d": (0.01, 5, 10.0), "e": (0.01, 50_000, 1e-8)
}  # fmt: skip
CONFIG = """
model = "gpt2_124m"
dims = {{ V = 257, C = 16, H = 2, L = 1, S = 44, B = 1, T = 44 }}
data = {{ train = "text.txt", tokenizer = "bytes" }}
train = {{ steps = 30, tokens_per_step = 44, val_every = 0, sample_every = 0, checkpoint_every = 0 }}
optimizer = {{ name = "adamw", lr = {lr}, eps = {eps} }}
schedule = {{ name = "constant", warmup = {warmup} }}
"""


def curves(names: str = "abcde") -> dict[str, list[list[float]]]:
    """Loss, gradient norm and lr by step of the runs of lesson 7: run -> rows of metrics.jsonl."""
    runs = {}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        try:
            Path("text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40, "utf-8")
            for name in names:
                lr, warmup, eps = RUNS[name]
                Path(f"{name}.toml").write_text(CONFIG.format(lr=lr, warmup=warmup, eps=eps), "utf-8")
                if run(["train", f"{name}.toml", "--device", "cpu"]):
                    raise RuntimeError(f"run {name} failed")
                lines = Path(f"runs/{name}/metrics.jsonl").read_text("utf-8").splitlines()
                runs[name] = [
                    [float(f"{json.loads(line)[key]:.4g}") for key in ("loss", "norm", "lr")] for line in lines
                ]
        finally:
            os.chdir(before)
    return runs


def write() -> None:
    """Measure, and write the file."""
    data = {"attention": attention(), "curves": curves()}
    FILE.write_text(json.dumps(data, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    write()
