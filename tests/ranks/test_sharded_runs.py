"""Checkpoints of which each rank saves a slice, and updates of slices: those of one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_ranks import Summing, on_ranks

from core import checkpoint
from core.checkpoint import Contents
from core.engine import Engine, Settings
from core.graph import load_model
from core.loader import load_registry
from core.ranks.group import ALONE, Ranks
from core.train.sliced_saving import saver

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


def engine_of(folder: Path, ranks: Ranks, precision: str, shard: bool = True) -> Engine:
    (folder / f"{ranks.rank}.toml").write_text(MODEL)
    registry = load_registry()
    device = "sim" if precision == "bf16" else "cpu"
    settings = Settings(device=device, precision=precision, optimizer="adamw", options={"clip": 0.5}, shard=shard)
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


def one_step(engine: Engine, seed: int) -> tuple[float, float]:
    """(loss, norm) of a step on tokens drawn from a seed."""
    rows = np.random.default_rng(seed).integers(0, 200, (2, 9)).astype(np.int32)
    record = engine.step([{engine.token_input: rows[:, :-1], "targets": rows[:, 1:]}], 1e-2)
    return record.loss, record.norm


def test_a_bf16_update_of_slices_has_the_bits_of_the_whole_in_the_simulator(tmp_path: Path) -> None:
    """Losses, norms, master weights and moments."""
    for shard in (True, False):
        (tmp_path / str(shard)).mkdir()
    one_step(engine_of(tmp_path, ALONE, "bf16"), 0)  # kernels are compiled once

    def work(group: Ranks) -> None:
        group.__class__ = Summing
        numbers = []
        for shard in (True, False):
            engine = engine_of(tmp_path, group, "bf16", shard)
            assert (engine.slices is not None) == shard
            numbers.append([one_step(engine, group.rank) for _ in range(2)])
            state = {"step": 2, "tokens": 0}
            contents = Contents(engine.parameters(), engine.optimizer_state(), engine.model.to_toml({}), None, state)
            if shard or group.leads:
                (saver(engine) if shard else checkpoint.save)(tmp_path / str(shard), 2, contents)
        assert numbers[0] == numbers[1]

    assert on_ranks(2, work) == [0, 0]
    sliced, whole = (checkpoint.load(tmp_path / str(shard) / "step_00000002") for shard in (True, False))
    assert len(sliced.files) == 3 and len(whole.files) == 2
    for ours, theirs in zip(
        (sliced.parameters, *sliced.optimizer.values()), (whole.parameters, *whole.optimizer.values()), strict=True
    ):
        assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in theirs)
