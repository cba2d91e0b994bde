"""Runs of 12 steps with checkpoints, to be cut, damaged and resumed; checkpoints with contents of their own.

The model has 5,000 parameters. The fixtures over these functions are in faults/checkpoints/conftest.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run

from core import checkpoint, files
from core.checkpoint import Contents
from core.loader import load_registry
from core.registry import Registry
from core.signals import Stop
from core.train import setup
from core.train.display import Display
from core.train.loop import Trainer
from core.train.run import Run, read_lines
from core.train.setup import TrainArguments, prepare

ROOT = Path(__file__).resolve().parents[1]
CONFIG = small_run.config(
    dims={"L": 2, "S": 16},
    data={"train": "train_*.bin", "val": "val_*.bin"},
    train={
        "steps": 12,
        "val_every": 3,
        "val_tokens": 40,
        "sample_every": 5,
        "sample_tokens": 3,
        "checkpoint_every": 4,
        "keep_last": 3,
        "recompute": ["gelu", "layernorm"],
    },
    schedule={"name": "cosine", "warmup": 2},
)
posix_only = pytest.mark.skipif(os.name == "nt", reason="processes are forked and killed as POSIX has it")


@contextmanager
def started_quickly() -> Iterator[None]:
    """Without two slow parts of a start: one registry serves all runs without a plugin, and no speed is measured."""

    def load(plugins: Any, disable: Any, device: str) -> Any:
        return load_registry(plugins, disable=disable) if plugins else shipped()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("core.config.resolved.load_registry", load)
        patched.setattr(setup, "check_estimate", lambda *arguments: None)
        yield


@cache
def shipped() -> Registry:
    return load_registry()


def settle(folder: Path, shards: Path) -> None:
    (folder / "small.toml").write_text(CONFIG)
    for path in shards.iterdir():
        shutil.copy(path, folder / path.name)


def trainer(stack: ExitStack, *overrides: str, **options: Any) -> Trainer:
    return prepare(TrainArguments("small.toml", overrides, device="cpu", **options), Display(quiet=True), stack)


def train(*overrides: str, stop_after: int = 0, by: int = signal.SIGTERM, **options: Any) -> int:
    """Train in this process; `stop_after` asks it to end after that step, as the signal `by` does."""
    with ExitStack() as stack:
        made = trainer(stack, *overrides, **options)
        stop = Stop()

        def ask(run: Run, step: int, metrics: dict[str, Any]) -> None:
            if step == stop_after:
                stop.signal = by

        made.job.hooks = [ask]
        return made.train(stop)


def curve(run: Path) -> list[tuple[Any, ...]]:
    """What a step computed, of every step."""
    names = ("step", "loss", "norm", "lr", "loss_z", "norm_z", "tokens", "val_loss", "val_tokens")
    return [tuple(line.get(name) for name in names) for line in read_lines(run / "metrics.jsonl")]


def tensors_of(path: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.glob("*.safetensors")}


def assert_same(run: Path, whole: Path) -> None:
    """Every loss and norm, the parameters, the optimizer, what a resume would go on from, and the samples."""
    assert curve(run) == curve(whole) and len(curve(run)) == 12
    ours, theirs = checkpoint.find(run), checkpoint.find(whole)
    assert tensors_of(ours.path) == tensors_of(theirs.path) and len(tensors_of(ours.path)) == 2
    changing = {"made_with": None}  # it names the checkout's commit, which the tests do not hold still
    assert ours.state | changing == theirs.state | changing
    assert (run / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def log(run: Path) -> str:
    return (run / "train.log").read_text()


def contents(step: int) -> Contents:
    """Something else at every step."""
    weights = {"a.weight": np.full((40, 3), step, np.float32), "b": np.arange(step + 1, dtype=np.float32)}
    moments = {"m": {n: w + 1 for n, w in weights.items()}, "v": {n: w + 2 for n, w in weights.items()}}
    state = {"step": step, "best_step": step}
    return Contents(weights, moments, "name = 'tiny'\n", '{"kind": "bytes"}', state)


def assert_is(loaded: checkpoint.Checkpoint, step: int) -> None:
    want = contents(step)
    assert loaded.step == step and (loaded.model_toml, loaded.tokenizer_json) == (want.model_toml, want.tokenizer_json)
    for name, array in want.parameters.items():
        np.testing.assert_array_equal(loaded.parameters[name], array)
        for state, tensors in want.optimizer.items():
            np.testing.assert_array_equal(loaded.optimizer[state][name], tensors[name])


def count_calls(do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    seen: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(files, "POINT", lambda call, path: seen.append(call))
        do()
    return len(seen)


def save_and_retain(folder: Path) -> None:
    checkpoint.save(folder, 2, contents(2))
    checkpoint.retain(folder, 2, keep_last=1, keep_every=0, best=2)


def in_child(do: Callable[[], None]) -> int:
    """What `os.waitpid` says of a child that does it: negative, the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            do()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def damage(path: Path, how: str) -> None:
    raw = bytearray(path.read_bytes())
    if how == "flipped bit":
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    elif how == "cut short":
        path.write_bytes(raw[:-2])
    else:
        path.unlink()


def seal(path: Path) -> None:
    """Make the manifest say what is there: a checkpoint whose hashes are right, whatever it holds."""
    names = (*checkpoint.REQUIRED, checkpoint.TOKENIZER)
    listed = {n: (path / n).read_bytes() for n in names if (path / n).exists()}
    entries = {n: {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)} for n, raw in listed.items()}
    (path / checkpoint.MANIFEST).write_text(json.dumps({"format": 1, "files": entries}))
