"""Checkpoints of runs of which each rank has a slice: on the same number of ranks, on others, and read by commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_ranks import on_ranks
from mpi_runs import NEEDS_MPI, core_on, train_on

import core
from core import checkpoint
from core.checkpoint import Contents
from core.engine import Engine, Settings
from core.graph import load_model
from core.loader import load_registry
from core.ranks.group import ALONE, Ranks
from core.train.sliced_saving import saver

TINY = ("train.steps=4", "train.tokens_per_step=128", "dims.B=2", "dims.T=32", "dims.C=48", "dims.H=2", "dims.L=1",
        "train.sample_every=0", "train.val_every=0", "train.checkpoint_every=2")  # fmt: skip
FILES = ["model.safetensors", "optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"]


@NEEDS_MPI
def test_a_sharded_run_resumes_on_as_many_ranks_bit_for_bit_and_on_others_within_rounding(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    losses = [line["loss"] for line in train_on(2, whole, small=TINY)]
    last = checkpoint.load(whole / "checkpoints" / "step_00000004")
    assert sorted(p.name for p in last.path.glob("*.safetensors")) == FILES
    for ranks, settings, bits in ((2, (), True), (2, ("train.shard=false",), True), (1, (), False)):
        run = tmp_path / f"again-{ranks}-{len(settings)}"
        shutil.copytree(whole, run)
        shutil.rmtree(run / "checkpoints" / "step_00000004")
        sets = [part for setting in (*TINY, *settings) for part in ("--set", setting)]
        words = ["train", "configs/tiny.toml", "--device", "cpu", "--out", str(run), "--resume", *sets]
        done = core_on(ranks, *words, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        again = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert again == (losses if bits else pytest.approx(losses, rel=1e-6))
        found = checkpoint.load(run / "checkpoints" / "step_00000004")
        assert (found.optimizer.keys(), len(found.files)) == (last.optimizer.keys(), 2 if settings or ranks == 1 else 3)
        if bits:
            for ours, theirs in zip((found.parameters, *found.optimizer.values()),
                                    (last.parameters, *last.optimizer.values()), strict=True):  # fmt: skip
                assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    tokens = np.arange(8)[None]
    model = core.load(str(whole))
    assert np.isfinite(model.logits(tokens)).all() and model.params.keys() == last.parameters.keys()


MODEL = """
extends = "gpt2_124m"
[dims]
B = 2
T = 8
S = 8
V = 200
C = 48
H = 2
L = 1
"""


def engine_of(folder: Path, ranks: Ranks, precision: str) -> Engine:
    (folder / f"{ranks.rank}.toml").write_text(MODEL)
    registry = load_registry()
    settings = Settings(device="sim" if precision == "bf16" else "cpu", precision=precision, optimizer="adamw")
    engine = Engine(load_model(str(folder / f"{ranks.rank}.toml"), registry), registry, settings, None, ranks)
    engine.initialize(7)
    return engine


def random_state(engine: Engine) -> dict[str, dict[str, Any]]:
    """The same on every rank."""
    rng = np.random.default_rng(5)
    names = {name: array.shape for name, array in engine.parameters().items()}
    return {state: {n: rng.random(s, dtype=np.float32) for n, s in names.items()} for state in ("m", "v")}


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_what_ranks_save_is_what_one_would_and_is_loaded_in_slices_again(
    tmp_path: Path, precision: str, ranks: int
) -> None:
    """Master weights of a bf16 run are gathered in full precision; padding is in no file."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    one = engine_of(tmp_path, ALONE, precision)
    state = random_state(one)

    def work(group: Ranks) -> None:
        engine = engine_of(tmp_path, group, precision)
        assert engine.slices and engine.store.states["m"].shape[0] < 0.7 * engine.layout.trainable
        engine.load_optimizer_state(state)
        text = engine.model.to_toml({})
        contents = Contents(engine.parameters(), engine.optimizer_state(), text, None, {"step": 3, "tokens": 0})
        save = saver(engine)
        save(folder, 3, contents)
        loaded = checkpoint.load(folder / "step_00000003")
        engine.load_parameters(loaded.parameters)
        engine.load_optimizer_state(loaded.optimizer)
        loaded.release()
        save(folder, 4, Contents(engine.parameters(), engine.optimizer_state(), text, None, {"step": 4, "tokens": 0}))

    assert on_ranks(ranks, work) == [0] * ranks
    found = checkpoint.load(folder / "step_00000003")
    for name, array in one.parameters().items():
        assert np.array_equal(found.parameters[name], array), name
        assert all(np.array_equal(found.optimizer[s][name], state[s][name]) for s in state), name
    assert len(found.files) == 1 + ranks
    for path in found.path.glob("*.safetensors"):
        assert path.read_bytes() == (folder / "step_00000004" / path.name).read_bytes()
