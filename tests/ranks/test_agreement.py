"""What ranks must have alike before step 1, what rank 0 chooses for all, and replicas that come apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_ranks import Beside, Second

from core import checkpoint
from core.checkpoint import opening
from core.engine import Engine, Settings
from core.errors import CheckpointError, NumericsError, UsageError
from core.graph import load_model
from core.loader import load_registry
from core.plan import TRAIN
from core.train.agreement import compare, flat, take_choices
from core.train.replicas import compare_replicas
from core.train.roll_call import RollCall
from core.train.verified_together import load_together

OURS = {"the config's train.steps": 4, "source ops/gelu.py": "abc"}


def told(facts: dict[str, object]) -> bytes:
    return json.dumps({key: str(value) for key, value in facts.items()}).encode()


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({**OURS, "the config's train.steps": 5}, "train.steps: rank 0 on a has 4, and rank 1 on b has 5"),
        ({"the config's train.steps": 4}, "source ops/gelu.py: rank 0 on a has abc, and rank 1 on b has nothing"),
        ({**OURS, "plugin x": "1.0"}, "plugin x: rank 0 on a has nothing, and rank 1 on b has 1.0"),
    ],
)
def test_a_difference_is_refused_with_rank_host_key_and_both_values(theirs: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        compare(Beside(told(theirs)), OURS)
    assert said in str(refused.value)


def test_ranks_that_agree_train() -> None:
    compare(Beside(told(OURS)), OURS)


def test_of_slices_a_rank_may_lack_an_update_of_matrices_but_have_no_other_one() -> None:
    """Muon's slice of the embedding alone has no matrix for muon_update."""
    muon = {**OURS, "the variant of muon_update": "reference"}
    for ours, theirs in ((OURS, muon), (muon, OURS)):
        compare(Beside(told(theirs)), ours, partial=True)
        with pytest.raises(UsageError, match="the variant of muon_update"):
            compare(Beside(told(theirs)), ours)
    with pytest.raises(UsageError, match="the variant of muon_update"):
        compare(Beside(told({**muon, "the variant of muon_update": "tiled"})), muon, partial=True)


def test_each_file_of_the_data_has_a_key_of_its_own() -> None:
    keys = flat({"train": {"files": [{"file": "a", "sha256": "x"}], "seed": 1}}, "data ")
    assert keys == {"data train.files.0.file": "a", "data train.files.0.sha256": "x", "data train.seed": 1}


def digests(arrays: Sequence[np.ndarray]) -> bytes:
    """What compare_replicas gives for them, as another rank gives it."""
    beside = Beside()
    compare_replicas(beside, 1, ((str(index), array) for index, array in enumerate(arrays)))
    return beside.gave[0]


def test_the_first_tensor_that_differs_is_named() -> None:
    ours = [np.arange(6.0).reshape(2, 3), np.ones(3, np.float32), np.zeros(2)]
    names = ("parameter wte", "parameter ln.weight", "m of wte")
    compare_replicas(Beside(digests(ours)), 8, zip(names, ours, strict=True))
    theirs = [ours[0], np.nextafter(ours[1], np.float32(2)), ours[2] + 1]
    with pytest.raises(NumericsError, match=r"step 8: parameter ln.weight of rank 1 on b differs from that of rank 0"):
        compare_replicas(Beside(digests(theirs)), 8, zip(names, ours, strict=True))


def test_each_rank_hashes_a_part_of_a_checkpoint_and_a_fault_of_one_is_one_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "SMALL", 100)  # bytes: the tensors' files alone are large
    weights = {"a.weight": np.arange(64.0, dtype=np.float32)}
    (tmp_path / "checkpoints").mkdir()
    saved = checkpoint.save(
        tmp_path / "checkpoints", 3, checkpoint.Contents(weights, {"m": weights}, "", None, {"step": 3})
    )
    assert load_together(Beside(said(saved.name)), saved).step == 3
    for name in (checkpoint.MODEL, checkpoint.OPTIMIZER):
        whole = (saved / name).read_bytes()
        (saved / name).write_bytes(whole[:-1] + b"?")
        seen = [rank for rank in range(3) if fault_of(saved, (rank, 3))]
        assert len(seen) == 1, name
        (saved / name).write_bytes(whole)
    with pytest.raises(CheckpointError, match="the fault of rank 1"):
        load_together(Beside(said(saved.name, "the fault of rank 1")), saved)
    with pytest.raises(CheckpointError, match="rank 0 reads step_00000003 of .*, and rank 1 on b step_00000002"):
        load_together(Beside(said("step_00000002")), saved)


def said(path: str, problem: str = "") -> bytes:
    return json.dumps({"path": path, "problem": problem, "hint": ""}).encode()


def fault_of(path: Path, part: tuple[int, int]) -> str:
    try:
        checkpoint.load(path, part).release()
    except CheckpointError as error:
        return error.message
    return ""


def row(ok: bool, halted: bool = False, seconds: float = 1.0) -> bytes:
    return np.array([not ok, halted, 2.5, 1.0, seconds]).tobytes()


def test_an_update_that_one_rank_skips_ends_the_run() -> None:
    made = SimpleNamespace(ok=True, halted=False, loss=2.5, norm=1.0)
    lines: list[str] = []
    RollCall(Beside(row(True)), lines.append).call(3, made, 1.0)
    with pytest.raises(NumericsError, match="rank 0 on a updated.*rank 1 on b skipped the update"):
        RollCall(Beside(row(False)), lines.append).call(3, made, 1.0)
    slow = RollCall(Beside(*[row(True, seconds=2.0)] * 6), lines.append)
    for step in range(6):
        slow.call(step, made, 1.0)
    assert len(lines) == 1
    assert lines[0].startswith("note: rank 1 on b lags")


def test_variants_that_rank_0_has_chosen_are_taken_by_all() -> None:
    chosen: list[dict[str, str]] = []

    def first(own: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        chosen.append({**own["nodes"], "h.0.act": "reference", "adamw_update": "reference"})
        return {**own, "nodes": chosen[0]}

    registry = load_registry()
    settings = Settings(
        dims={"C": 16, "H": 2, "L": 1, "V": 64, "S": 16, "T": 16, "B": 1}, optimizer="adamw", shard=False
    )
    engine = Engine(load_model("gpt2_124m", registry), registry, settings, ranks=Second(first))
    before = engine.report(engine.plan(TRAIN)).choices()
    assert before["h.0.act"].variant.name != "reference"
    take_choices(engine)
    after = engine.report(engine.plan(TRAIN)).choices()
    assert {name: choice.variant.name for name, choice in after.items()} == chosen[0]
