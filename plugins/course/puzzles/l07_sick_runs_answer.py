"""Five sick runs of `core train`: each differs from a healthy one in one bad number. `repaired` returns the one key
to change, and its new value, such as {"optimizer.betas": [0.9, 0.95]}. `measured` trains with it and reads
metrics.jsonl: the validation loss must be below 3.6 after 30 steps; it begins at log 257 = 5.55."""

import json
import tempfile
from pathlib import Path

from core.cli import run as core_command

SICK = {
    "b": {"optimizer.lr": 3.0},
    "c": {"optimizer.lr": 1e-6},
    "d": {"optimizer.eps": 10.0},
    "e": {"schedule.warmup": 50_000},
    "f": {"optimizer.clip": 1e-9},
}
HEALTHY = {"optimizer.lr": 0.01, "optimizer.eps": 1e-8, "optimizer.clip": 1.0, "schedule.warmup": 5}


def repaired(run):
    #[ for each of "b", "c", "d", "e" and "f": which key is sick, and which value is healthy?
    return {
        "b": {"optimizer.lr": 0.01},
        "c": {"optimizer.lr": 0.01},
        "d": {"optimizer.eps": 1e-8},
        "e": {"schedule.warmup": 5},
        "f": {"optimizer.clip": 1.0},
    }[run]
    #]


SMALL = {"B": 8, "T": 32, "S": 32, "C": 32, "H": 2, "L": 1, "V": 257}
REST = {"data.tokenizer": "bytes", "data.vocab_size": 257, "train.steps": 30, "train.tokens_per_step": 256,
        "train.val_every": 30, "train.val_tokens": 512, "train.sample_every": 0, "train.checkpoint_every": 0}


def measured(run):
    sick = HEALTHY | SICK[run]
    settings = {**{f"dims.{name}": size for name, size in SMALL.items()}, **REST, **sick, **repaired(run)}
    with tempfile.TemporaryDirectory() as folder:
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        core_command(["train", "tiny", "--device", "cpu", "--quiet", "--out", f"{folder}/run", *words])
        steps = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
    changed = sum(sick.get(key) != value for key, value in repaired(run).items())
    print(f"run {run}: loss {steps[0]['loss']:.2f}, {steps[14]['loss']:.2f}, {steps[-1]['loss']:.2f}")
    return {"learns": steps[-1]["val_loss"] < 3.6, "numbers changed": changed}
