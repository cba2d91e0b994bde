"""`core.replay`: any step of a run again, its losses and norms the run's own, bit for bit, and the run unchanged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run

import core
from core.cli import run
from core.errors import DataError, UsageError
from core.train.run import take_lock
from core.view.replay import Repeated, ReplayedStep
from core.view.run_record import RunRecord

DROPPING = """
extends = "gpt2_124m"
[block.layer]
drop = { op = "dropout", in = "act", p = 0.1 }
down = { op = "matmul", in = "drop", features = "C" }
"""
STEPS, EVERY = 7, 3  # checkpoints at 3, 6 and 7
SIZES: dict[str, dict[str, Any]] = {
    "cpu f32": {},
    "cpu f32 dropout": {"model": "./drop.toml"},
    "cpu f32 skipped": {
        "detect": {"action": "skip", "window": 2, "loss_z": 0.01, "norm_z": 0.01},
        "optimizer": {"lr": 0.5},
    },
    "sim bf16 dropout": {
        "model": "./drop.toml",
        "dims": {"T": 8, "B": 1},
        "train": {"tokens_per_step": 16, "steps": 4},
    },
}


def made(folder: Path, name: str, **changes: Any) -> Path:
    """A run of STEPS steps in two micro-steps each, in its own folder with its config and text."""
    device, precision, *_ = name.split()
    given = SIZES.get(name, {}) | changes
    train = {"steps": STEPS, "checkpoint_every": EVERY, "keep_last": 3, "check": False, **given.get("train", {})}
    text = small_run.unwatched(**{**given, "train": train, "precision": precision})
    small_run.write(folder, text)
    (folder / "drop.toml").write_text(DROPPING)
    assert run(["train", "small.toml", "--device", device]) == 0
    return folder / "runs" / "small"


def files_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {str(p): (s.st_mtime_ns, s.st_size, s.st_ino) for p in folder.rglob("*") for s in [p.stat()]}


@pytest.mark.parametrize("name", SIZES)
def test_losses_and_norms_are_the_runs_own_and_its_folder_is_unchanged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = made(tmp_path, name)
    before, lines = files_of(folder), RunRecord(folder).metrics
    for step, began in ((2, 0), (4, 3), (6, 3)) if name.startswith("cpu") else ((1, 0), (4, 3)):
        replayed = core.replay(folder, step)
        assert replayed.began == began and [one.step for one in replayed.steps] == [*range(began + 1, step + 1)]
        for one in replayed.steps:
            assert (one.loss, one.norm) == (lines[one.step - 1]["loss"], lines[one.step - 1]["norm"])
        assert replayed.exact and replayed.label.startswith("exact") and not replayed.differences
        assert replayed.record.ok is not lines[step - 1].get("skipped", False)
    assert files_of(folder) == before
    if name.startswith("sim"):
        near = core.replay(folder, 1, device="cpu")
        assert near.label.startswith("near: 1 step run again on cpu in f32, and the run was on sim in bf16; ")
        assert near.record.loss == pytest.approx(lines[0]["loss"], rel=0.02)
    if name.endswith("skipped"):
        assert any(line.get("skipped") for line in lines)


def copied(step: ReplayedStep) -> list[tuple[int, str, str, dict[str, Any]]]:
    return [
        (micro, event.kind, event.node, {name: a.copy() for name, a in event.tensors.items() if a is not None})
        for micro, event in step.events()
    ]


def test_a_step_stops_with_every_tensor_and_may_be_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = made(tmp_path, "cpu f32 dropout")
    step = core.replay(folder, 3)
    first = [
        (m, e.kind, e.node, {n: a.copy() for n, a in e.tensors.items() if a is not None}) for m, e in step.events()
    ]
    gradients, updates = step.gradients(), step.updates()
    again = [
        (m, e.kind, e.node, {n: a.copy() for n, a in e.tensors.items() if a is not None}) for m, e in step.events()
    ]
    assert {m for m, *_ in first} == {0, 1} and {"h.0.drop"} < {node for _, _, node, _ in first}
    for (*ours, tensors), (*theirs, others) in zip(first, again, strict=True):
        assert ours == theirs and tensors.keys() == others.keys()
        assert all(np.array_equal(tensors[name], others[name], equal_nan=True) for name in tensors)
    after = core.load(folder / "checkpoints" / "step_00000003").params
    for name, values in step.parameters().items():
        assert np.array_equal(values + updates[name], after[name]) or np.allclose(values + updates[name], after[name])
    norm = np.sqrt(sum(float(np.square(g.astype(np.float64)).sum()) for g in gradients.values()))
    assert norm == pytest.approx(step.record.norm, rel=1e-5)
    next(iter(step.events()))  # a trace that is left leaves gradients of a part of the step
    assert all(np.array_equal(gradients[name], array) for name, array in step.gradients().items())


def test_a_run_of_another_device_is_near_with_its_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = made(tmp_path, "sim f32", dims={"T": 8, "B": 1}, train={"tokens_per_step": 16, "steps": 2})
    assert core.replay(folder, 2).exact
    step = core.replay(folder, 2, device="cpu")
    assert not step.exact and step.label.startswith(
        "near: 2 steps run again on cpu in f32, and the run was on sim in f32; "
    )
    assert [one.step for one in step.differences] == [1, 2]
    assert all(one.loss == pytest.approx(one.run_loss, rel=1e-4) for one in step.differences)


def test_a_replay_works_while_the_run_is_locked_and_over_a_damaged_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = made(tmp_path, "cpu f32")
    (folder / "checkpoints" / "step_00000006" / "model.safetensors").write_bytes(b"")
    with take_lock(folder / "LOCK"):
        step = core.replay(folder, 7)
    assert step.exact and step.began == 3


def test_what_cannot_be_replayed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = made(tmp_path, "cpu f32")
    with pytest.raises(UsageError, match="step 8 of small: expected 1 to 7"):
        core.replay(folder, 8)
    with pytest.raises(UsageError, match="is not a run's folder"):
        core.replay(tmp_path, 1)
    said: list[str] = []
    monkeypatch.setattr("core.view.replay.LONG", 0.0)
    with pytest.raises(UsageError, match="step 5 of small: 2 steps from the checkpoint of step 3 take about") as error:
        core.replay(folder, 5, say=said.append)
    assert "--yes" in error.value.hint and "4, 7" in error.value.hint
    assert said == ["step 5: 2 steps from the checkpoint of step 3, about 1s on the cpu"]
    assert core.replay(folder, 5, yes=True).exact
    (tmp_path / "text.txt").write_text("another text " * 200)
    with pytest.raises(DataError, match="the data differs"):
        core.replay(folder, 5, yes=True)


def test_a_run_that_started_from_the_checkpoint_of_another_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    origin = made(tmp_path, "cpu f32") / "checkpoints" / "step_00000003"
    again = ["train", "small.toml", "--device", "cpu", "--from", str(origin), "--out", "runs/again"]
    assert run([*again, "--set", "train.checkpoint_every=2"]) == 0
    with pytest.raises(UsageError, match="again: it starts at step 4, and no checkpoint before step 4 is kept"):
        core.replay("runs/again", 4)
    assert core.replay("runs/again", 5).exact


def test_a_step_that_the_metrics_lack_is_not_called_exact() -> None:
    assert not Repeated(3, 1.0, 1.0).equal and not Repeated(3, 1.0, 1.0).compared


def test_training_imports_nothing_of_the_views(tmp_path: Path) -> None:
    small_run.write(tmp_path, small_run.unwatched(train={"steps": 1}))
    code = (
        "import sys; from core.cli import run; assert run(['train', 'small.toml', '--device', 'cpu']) == 0;"
        "print([name for name in sys.modules if name.startswith('core.view')])"
    )
    root = str(Path(core.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": root, "PATH": ""}, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
