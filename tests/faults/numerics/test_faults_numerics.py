"""Numbers that go wrong: each is put into a small run, which must stop before harm, or go on as its config says."""

from __future__ import annotations

import errno
import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numeric_faults import NONE, crashed, curve, fault, log, same, tensors, tensors_of, train, trainer

from core import checkpoint, files
from core.checkpoint.tensor_file import TensorFile
from core.cli import run as core_command
from core.errors import NumericsError
from core.signals import Stop
from core.train.crash import statistics
from core.train.run import read_lines

WEIGHT = "h.0.qkv.weight"


def on_disk(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what is not finite --------------------------------------------------------------------------------------------

CASES = {
    "weight": (NONE, f"parameter {WEIGHT} holds 1 nan among 768 numbers"),
    "activation": (
        "row = 32",  # in the second micro-step
        r"node h.0.bad \(faulty.reference\) is the first .* y of its forward in micro-step 2 holds 1 nan among 2,048",
    ),
    "gradient": (
        'harm = "inf", backward = true',
        r"node h.0.bad \(faulty.reference\) .* dx of its backward in micro-step 1 holds 1 inf among 2,048",
    ),
    "lr": (NONE, "the learning rate is nan"),
}


@pytest.mark.parametrize("where", CASES)
def test_what_is_not_finite_stops_the_run_before_it_changes_anything(here: Path, stack: ExitStack, where: str) -> None:
    fault(CASES[where][0])
    made = trainer(stack, "a", *(["schedule.name=broken"] if where == "lr" else []))
    before: dict[str, Any] = {}

    def at_the_third_step(run: Any, step: int, metrics: dict[str, Any]) -> None:
        if step == 3:
            if where == "weight":
                made.job.engine.parameters()[WEIGHT][0, 0] = math.nan
            before.update(tensors(made), disk=np.frombuffer(repr(on_disk(here / "a/checkpoints")).encode(), np.uint8))

    made.job.hooks = [at_the_third_step]
    with pytest.raises(NumericsError, match=CASES[where][1]) as caught:
        made.train(Stop())
    assert caught.value.exit_code == 5
    assert "step 4/6: " in caught.value.message and "nothing was updated" in caught.value.message
    assert "checkpoint is that of step 2; the step is in a/crash-step_00000004" in caught.value.message.replace(
        "\\", "/"
    )
    after = {**tensors(made), "disk": np.frombuffer(repr(on_disk(here / "a/checkpoints")).encode(), np.uint8)}
    assert same(before, after)
    assert [m["step"] for m in read_lines(here / "a/metrics.jsonl")] == [1, 2, 3]


def test_a_crash_folder_has_the_batch_its_text_the_statistics_and_the_cause(here: Path, stack: ExitStack) -> None:
    fault("row = 32")
    made = trainer(stack, "a")
    with pytest.raises(NumericsError):
        made.train(Stop())
    folder = here / "a/crash-step_00000004"
    assert {p.name for p in folder.iterdir()} == {"crash.json", "batch.safetensors", "batch.txt", "tensors.jsonl"}
    cause = crashed()["cause"]
    assert (cause["node"], cause["op"], cause["tensor"], cause["micro_step"]) == ("h.0.bad", "faulty", "y", 1)
    assert math.isnan(float(crashed()["loss"])) and crashed()["lr"] == 1e-3
    stored = TensorFile(folder / "batch.safetensors")
    for index, batch in enumerate(made.job.batches(3)):
        for name, values in batch.items():
            np.testing.assert_array_equal(stored[f"{index}.{name}"], values)
        for row in batch["tokens"]:
            assert (
                made.job.tokenizer is not None and made.job.tokenizer.decode(row) in (folder / "batch.txt").read_text()
            )
    rows = [json.loads(line) for line in (folder / "tensors.jsonl").read_text().splitlines()]
    parameters = made.job.engine.parameters()
    assert [r["tensor"] for r in rows if r["kind"] == "parameter"] == list(parameters)
    assert rows[-1]["node"] == "h.0.bad" and rows[-1]["nan"] == 1
    assert not any(r["nan"] or r["inf"] for r in rows[:-1]), "what came before was finite"
    values = np.asarray(parameters[WEIGHT], np.float64)
    row = next(r for r in rows if r["tensor"] == WEIGHT)
    assert (row["min"], row["max"]) == (values.min(), values.max())
    assert row["rms"] == pytest.approx(math.sqrt((values**2).mean()))


def test_an_error_of_the_machine_is_not_blamed_on_an_op(here: Path, stack: ExitStack) -> None:
    fault("once = true")
    with pytest.raises(NumericsError, match="run again, the same step has only finite numbers.*nothing was updated"):
        trainer(stack, "a").train(Stop())
    assert crashed()["cause"]["kind"] == "unknown" and crashed()["cause"]["node"] == ""


def test_gradients_too_large_to_square_in_f32_are_clipped_by_their_norm(here: Path, stack: ExitStack) -> None:
    fault('harm = "large", backward = true')
    assert trainer(stack, "a").train(Stop()) == 0
    large = [m for m in read_lines(here / "a/metrics.jsonl") if m["norm"] > 1e20]
    assert len(large) == 1 and math.isfinite(large[0]["norm"])
    assert all(math.isfinite(m["loss"]) for m in read_lines(here / "a/metrics.jsonl"))


def test_weights_that_an_update_made_infinite_do_not_become_a_checkpoint(here: Path, stack: ExitStack) -> None:
    made = trainer(stack, "a")
    before: dict[str, bytes] = {}

    def spoil(run: Any, step: int, metrics: dict[str, Any]) -> None:
        if step == 3:
            made.job.engine.optimizer_state()["v"][WEIGHT][0, 0] = math.nan
            before.update(on_disk(here / "a/checkpoints"))

    made.job.hooks = [spoil]
    with pytest.raises(NumericsError, match=f"step 4/6: parameter {WEIGHT}, v {WEIGHT} holds non-finite values"):
        made.train(Stop())
    assert on_disk(here / "a/checkpoints") == before and checkpoint.find(here / "a").step == 2


def test_a_crash_folder_that_cannot_be_written_does_not_hide_the_cause(
    here: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault()
    made = trainer(stack, "a", "schedule.name=broken")

    def full(call: str, path: Path) -> None:
        if "crash-step" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "POINT", full)
    with pytest.raises(NumericsError, match="the learning rate is nan.* cannot be written: No space left on device"):
        made.train(Stop())


def test_the_command_exits_with_5_and_no_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault()
    assert core_command(["train", "config.toml", "--device", "cpu", "--out", "a"]) == 0
    fault("first = 1, last = 1")
    for _ in range(2):  # the same crash again takes the place of its folder
        assert core_command(["train", "config.toml", "--device", "cpu", "--out", "b", "--resume"]) == 5
    err = capsys.readouterr().err
    assert "core: error: step 2/6: loss is nan" in err and "crash-step_00000002" in err and "Traceback" not in err
    assert log("b").splitlines()[-2].startswith("error: step 2/6: loss is nan")
    assert [p.name for p in Path("b").glob("*crash*")] == ["crash-step_00000002"]


def test_what_halted_an_engine_lets_no_later_step_update(here: Path, stack: ExitStack) -> None:
    made = trainer(stack, "a")
    engine, batches = made.job.engine, made.job.batches(0)
    assert engine.step(batches, 1e-3, (math.inf, math.inf)).ok
    before = tensors(made)
    for lr in (math.inf, 1e-3, 1e-3):
        record = engine.step(batches, lr, (math.inf, math.inf))
        assert record.halted and not record.ok and same(tensors(made), before)
    assert engine.updates == 1


# --- looking changes nothing ---------------------------------------------------------------------------------------


def test_a_run_that_is_traced_is_the_untraced_one_bit_for_bit(here: Path) -> None:
    train("a")

    def look(made: Any, step: int, metrics: dict[str, Any]) -> None:
        batch = made.job.batches(0)[0]
        for number, _ in enumerate(made.job.engine.trace(batch)):
            if step % 2 and number == 9:  # one that is given up half-way
                break
        list(made.job.engine.replay(made.job.batches(step)))

    train("b", hook=look)
    assert curve("b") == curve("a") and len(curve("a")) == 6 and same(tensors_of("b"), tensors_of("a"))


def test_a_step_that_is_run_again_has_the_same_gradients_bit_for_bit(here: Path, stack: ExitStack) -> None:
    made = trainer(stack, "a")
    engine = made.job.engine
    for step, limit in ((0, math.inf), (1, 0.0)):  # with dropout, whose keys are the step's; the second updates nothing
        assert engine.step(made.job.batches(step), 1e-3, (limit, math.inf)).ok == (step == 0)
    once = {name: array.copy() for name, array in engine.parameter_gradients()}
    before = tensors(made)
    kinds = {event.kind for _, event in engine.replay(made.job.batches(1))}
    again = {name: array.copy() for name, array in engine.parameter_gradients()}
    assert {"forward", "backward"} <= kinds and same(once, again) and same(tensors(made), before)


def test_statistics_are_of_what_is_finite() -> None:
    found = statistics(np.array([[0.0, 3.0], [math.nan, -4.0], [math.inf, 0.0]], np.float32))
    assert found == {
        "shape": [3, 2], "nan": 1, "inf": 1, "zeros": 2, "min": -4.0, "max": 3.0, "mean": -0.25, "rms": 2.5
    }  # fmt: skip
    assert statistics(np.full(2, math.nan))["max"] is None
