"""What a run promises: its folder, exact resumption, its loop, and an orderly end whatever happens."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run

from core import checkpoint
from core.cli import run as core_command
from core.device.cpu import CpuDevice
from core.errors import CheckpointError, CoreError, DataError, NumericsError, UsageError
from core.kernels.chips import GPUS, Gpu
from core.signals import Stop
from core.train.display import Display
from core.train.loop import Trainer
from core.train.run import Run, choose_folder, read_lines, to_line
from core.train.run_names import find_run
from core.train.setup import TrainArguments, prepare
from core.words import printable

ROOT = Path(__file__).resolve().parents[2]
CONFIG = small_run.config(
    train={"val_every": 3, "val_tokens": 100, "sample_every": 3, "sample_tokens": 5, "checkpoint_every": 2},
    schedule={"name": "cosine", "warmup": 2},
)


@pytest.fixture
def here(workdir: Path) -> Path:
    """A working directory with a config and a little text; the cache is here too."""
    small_run.write(workdir, CONFIG)
    return workdir


def trainer(stack: ExitStack, *overrides: str, **asked: Any) -> Trainer:
    return prepare(TrainArguments("small.toml", overrides, device="cpu", **asked), Display(quiet=True), stack)


def train(*overrides: str, stop_after: int = 0, **asked: Any) -> int:
    """Train in this process; `stop_after` asks it to end after that step, as SIGINT does."""
    with ExitStack() as stack:
        made = trainer(stack, *overrides, **asked)
        stop = Stop()

        def ask(run: Run, step: int, metrics: dict[str, Any]) -> None:
            if step == stop_after:
                stop.signal = signal.SIGINT

        made.job.hooks = [ask]
        return made.train(stop)


def curve(folder: str) -> list[tuple[Any, ...]]:
    return [tuple(m.get(k) for k in ("step", "loss", "norm", "lr", "val_loss")) for m in metrics(folder)]


def metrics(folder: str) -> list[dict[str, Any]]:
    return read_lines(Path(folder) / "metrics.jsonl")


def hashes(folder: str) -> dict[str, str]:
    """sha256 of the tensors of the newest checkpoint."""
    path = checkpoint.find(Path(folder)).path
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.glob("*.safetensors")}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_leaves_what_the_design_lists(here: Path) -> None:
    assert train() == 0
    run = here / "runs" / "small"
    assert {p.name for p in run.iterdir()} == {
        "config.source.toml",
        "config.resolved.toml",
        "variants.json",
        "env.json",
        "metrics.jsonl",
        "train.log",
        "samples.jsonl",
        "LOCK",
        "checkpoints",
        "LATEST",
        "BEST",
    }
    assert [p.name for p in sorted((run / "checkpoints").iterdir())] == ["step_00000004", "step_00000006"]
    assert (run / "LATEST").read_text() == "step_00000006\n"
    assert (run / "config.source.toml").read_text() == CONFIG
    found = metrics("runs/small")
    assert [m["step"] for m in found] == [1, 2, 3, 4, 5, 6]
    assert [m["step"] for m in found if "val_loss" in m] == [3, 6]
    assert {"step", "loss", "norm", "lr", "ms", "tokens_per_s"} <= set(found[0])
    assert [s["step"] for s in read_lines(run / "samples.jsonl")] == [3, 6]
    assert all(len(s["tokens"]) == 6 for s in read_lines(run / "samples.jsonl"))
    state = checkpoint.find(run).state
    assert state["tokens"] == 6 * 64 and state["best_val"] == min(m["val_loss"] for m in found if "val_loss" in m)
    assert state["data"]["train"]["tokens"] > 1000 and state["tokenizer"]["name"] == "bytes"
    assert json.loads((run / "env.json").read_text())["packages"]["numpy"] == np.__version__
    nodes = json.loads((run / "variants.json").read_text())["nodes"]
    assert nodes == state["variants"] and "h.0.attn" in nodes


@pytest.mark.skipif(os.name == "nt", reason="a program of the path is a script here")
def test_what_a_run_says_of_the_machine_starts_no_program_of_the_path_but_git(tmp_path: Path) -> None:
    for name in ("uname", "lscpu", "sysctl", "ldd"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho x\n")
        (tmp_path / name).chmod(0o755)
    code = "import json; from core.train.run import environment; print(json.dumps(environment()))"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["platform"].startswith(f"{os.uname().sysname}-{os.uname().release}-")
    assert not (tmp_path / "ran").exists()


def test_the_resolved_config_trains_the_same(here: Path) -> None:
    train("train.steps=3", out=Path("a"))
    (here / "small.toml").write_text((here / "a" / "config.resolved.toml").read_text())
    train(out=Path("b"))
    assert curve("a") == curve("b") and hashes("a") == hashes("b")


def test_a_folder_that_exists_is_refused_and_not_a_byte_of_it_changes(here: Path) -> None:
    train("train.steps=2", out=Path("a"))
    before = snapshot(here / "a")
    with pytest.raises(UsageError, match="a exists already") as caught:
        train(out=Path("a"))
    assert "--resume" in caught.value.hint
    assert snapshot(here / "a") == before


def test_runs_are_numbered_and_resume_takes_the_last(here: Path) -> None:
    assert choose_folder(None, "small", False) == Path("runs/small") == choose_folder(None, "small", True)
    for name in ("small", "small-2"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "LOCK").touch()
    assert choose_folder(None, "small", False) == Path("runs/small"), "no step was done in it"
    for name in ("small", "small-2"):
        Path("runs", name, "metrics.jsonl").write_text("{}")
    assert choose_folder(None, "small", False) == Path("runs/small-3")
    assert choose_folder(None, "small", True) == Path("runs/small-2")


def test_what_is_not_a_run_is_not_resumed_into(here: Path) -> None:
    with pytest.raises(UsageError, match="is not a run's folder"):
        train(out=Path("."), resume=True)
    assert not (here / "checkpoints").exists()


def test_a_wrong_config_creates_nothing(here: Path) -> None:
    for wrong in ("train.stpes=3", "optimizer.beta=1", "schedule.warm=1", "optimizer.name=adamv", "ops.matmul=fastest",
                  "data.train=absent-*.txt", "train.tokens_per_step=65", "train.freeze=nothing.*"):  # fmt: skip
        with pytest.raises(CoreError):
            train(wrong)
    assert not (here / "runs").exists()


def test_a_plan_says_what_is_wrong_with_the_options_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, known in {"optimizer.lrr=1": "lr", "schedule.warmp=1": "warmup", "schedule.nam=1": "name"}.items():
        assert core_command(["plan", "small.toml", "--device", "cpu", "--set", wrong]) == 2
        assert f'--set {wrong}: unknown key; did you mean "{known}"?' in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_training(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with ExitStack() as stack, monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", refuse)
        with pytest.raises(UsageError, match="cannot be written: Permission denied"):
            stack.enter_context(Run(here / "a"))


def test_metrics_read_back_exactly_and_are_json_whatever_the_numbers() -> None:
    record = {"step": 1, "loss": 0.1 + 0.2, "norm": math.nan, "lr": math.inf, "z": -math.inf, "é": "\ud800"}
    line = to_line(record)
    found = json.loads(line.encode("utf-8", "backslashreplace"), parse_constant=lambda name: pytest.fail(name))
    assert found["loss"] == 0.1 + 0.2 and math.isnan(float(found["norm"])) and float(found["lr"]) == math.inf
    assert float(found["z"]) == -math.inf and line.count("\n") == 1


def test_resume_starts_when_there_is_nothing_and_says_which_checkpoint_it_took(here: Path) -> None:
    train("train.steps=2", out=Path("a"), resume=True)
    train(out=Path("a"), resume=True)
    log = (here / "a" / "train.log").read_text()
    assert "resumed from a/checkpoints/step_00000002 (step 2)" in log.replace("\\", "/")
    assert "config change: train.steps: 2 -> 6" in log
    assert [m["step"] for m in metrics("a")] == [1, 2, 3, 4, 5, 6]


def test_from_goes_on_in_a_new_folder_and_leaves_the_old_one_alone(here: Path) -> None:
    train(out=Path("whole"))
    train("train.steps=4", out=Path("a"))  # another cosine: only its checkpoint 4 is looked at
    before = snapshot(here / "whole")
    train(out=Path("b"), origin=Path("whole/checkpoints/step_00000004"))
    assert curve("b") == curve("whole")[4:] and hashes("b") == hashes("whole")
    assert snapshot(here / "whole") == before


def test_weights_are_taken_without_the_optimizer_and_the_step(here: Path) -> None:
    train("train.steps=2", out=Path("a"))
    with ExitStack() as stack:
        made = trainer(stack, "weights=a", out=Path("b"))
        engine, found = made.job.engine, checkpoint.find(Path("a"))
        assert made.step == 0
        for name, array in engine.parameters().items():
            np.testing.assert_array_equal(array, found.parameters[name])
        assert not any(a.any() for state in engine.optimizer_state().values() for a in state.values())
    (here / "hf").mkdir()
    (here / "hf" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r'weights=hf: hf/config.json: "architectures" is None'):
        train("weights=hf", out=Path("c"))
    with pytest.raises(CheckpointError, match="weights=nowhere: nowhere: no such file, folder or model"):
        train("weights=nowhere", out=Path("d"))


def test_another_batch_size_is_no_other_architecture(here: Path) -> None:
    train("train.steps=2", out=Path("a"))
    train("train.steps=3", "dims.B=4", out=Path("a"), resume=True)
    assert checkpoint.find(here / "a").step == 3


def test_other_data_is_refused_and_may_be_allowed(here: Path) -> None:
    train("train.steps=2", out=Path("a"))
    (here / "text.txt").write_text("something else entirely, and long enough to train on. " * 30)
    with pytest.raises(DataError, match="differs from the checkpoint.s training data"):
        train(out=Path("a"), resume=True)
    assert train(out=Path("a"), resume=True, allow_data_change=True) == 0
    assert "data change, allowed" in (here / "a" / "train.log").read_text()


def test_the_next_batch_is_drawn_while_the_device_works_and_its_fault_is_the_next_steps(
    here: Path, stack: ExitStack
) -> None:
    made = trainer(stack, "train.steps=4", out=Path("ahead"))
    seen: list[str] = []
    batches, engine = made.job.batches, made.job.engine
    download = engine.device.download

    def drawn(step: int) -> Any:
        seen.append(f"draw {step}")
        if step == 2:
            raise DataError("damaged")
        return batches(step)

    made.job.batches = drawn
    engine.device.download = lambda tensor: seen.append("wait") or download(tensor)
    with pytest.raises(DataError, match="damaged"):
        made.train(Stop())
    assert made.step == engine.updates == 2, "the steps before it count"
    assert seen[:4] == ["draw 0", "draw 1", "wait", "draw 2"], (
        "each step's but the first before the device is waited for"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_stops_before_anything_changes(here: Path, stack: ExitStack, bad: float) -> None:
    made = trainer(stack, "train.keep_best=false", out=Path("a"))

    def poison(run: Run, step: int, record: dict[str, Any]) -> None:
        if step == 3:
            made.job.engine.parameters()["h.0.qkv.weight"][0, 0] = bad
            poisoned.update({n: a.copy() for n, a in made.job.engine.parameters().items()})

    poisoned: dict[str, Any] = {}
    made.job.hooks = [poison]
    with pytest.raises(NumericsError, match="step 4/6: loss is nan.* nothing was updated.* step 2"):
        made.train(Stop())
    for name, array in made.job.engine.parameters().items():
        np.testing.assert_array_equal(array, poisoned[name])
    assert [m["step"] for m in metrics("a")] == [1, 2, 3]
    assert checkpoint.steps(here / "a" / "checkpoints") == [2]


def test_validation_is_the_mean_over_the_tokens_asked_for(here: Path, stack: ExitStack) -> None:
    made = trainer(stack, "train.steps=3", out=Path("a"))
    made.train(Stop())
    engine = made.job.engine
    tokens = np.frombuffer((here / "val.txt").read_bytes(), np.uint8).astype(np.int32)
    tokens = np.concatenate([[256], tokens])[:101]  # documents begin with the end-of-text token
    total = 0.0
    for start in range(0, 100, 16):
        part = tokens[start : start + 17]
        x, y = np.zeros((1, 16), np.int32), np.full((1, 16), -1, np.int32)
        x[0, : len(part) - 1], y[0, : len(part) - 1] = part[:-1], part[1:]
        total += engine.evaluate({"tokens": x, "targets": y})[0]
    assert metrics("a")[-1]["val_tokens"] == 100
    assert metrics("a")[-1]["val_loss"] == pytest.approx(total / 100, rel=1e-5)


def test_validation_and_samples_change_nothing_of_training(here: Path) -> None:
    train(out=Path("a"))
    train("train.val_every=0", "train.sample_every=1", "train.checkpoint_every=6", out=Path("b"))
    assert [c[:4] for c in curve("a")] == [c[:4] for c in curve("b")] and hashes("a") == hashes("b")


def test_micro_steps_see_the_same_tokens_as_one_large_step(here: Path) -> None:
    train("dims.B=4", out=Path("a"))
    train("dims.B=2", out=Path("b"))
    assert [c[1] for c in curve("a")] == pytest.approx([c[1] for c in curve("b")], rel=1e-4)


def test_a_period_of_zero_is_never_and_the_end_says_what_is_saved(here: Path) -> None:
    train("train.checkpoint_every=0", "train.val_every=0", "train.sample_every=0", out=Path("a"), stop_after=2)
    assert checkpoint.steps(here / "a" / "checkpoints") == []
    assert "nothing is saved (checkpoint_every = 0)" in (here / "a" / "train.log").read_text().splitlines()[-1]


def test_train_and_sample_from_the_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert core_command(["train", "small.toml", "--device", "cpu", "--set", "train.steps=2"]) == 0
    out = capsys.readouterr().out
    assert "step 2/2 | loss " in out and "attention" in out and "tokenizer: bytes" in out
    assert (here / "runs/small/train.log").read_text() == out
    sample = ["sample", "small", "--prompt", "the ", "--tokens", "5", "--seed", "3", "--device", "cpu"]
    assert core_command([*sample, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"].startswith("the ") and found["seed"] == 3 and found["step"] == 2
    assert core_command(sample) == 0
    assert capsys.readouterr().out == printable(found["text"]) + "\n"
    assert core_command([*sample, "--prompt", "a longer one", "--temperature", "0", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)["samples"]
    assert [row["text"][: len(row["prompt"])] for row in both] == ["the ", "a longer one"]
    assert core_command(["sample", "smal"]) == 2
    assert 'did you mean "small"?' in capsys.readouterr().err
    assert core_command(["train", "small.toml", "--device", "cpu", "--out", "runs/small"]) == 2
    assert core_command(["train", "small.toml", "--device", "cpu", "--resume", "--from", "x"]) == 2
    assert find_run(None) == Path("runs/small")


def test_a_step_says_how_much_of_the_chip_it_uses_and_the_memory_of_its_device(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("train.steps=1", out=Path("cpu")) == 0
    assert metrics("cpu")[0]["mfu"] is None and metrics("cpu")[0]["sol"] is None and metrics("cpu")[0]["memory"] > 2**20
    monkeypatch.setattr(CpuDevice, "model", "NVIDIA H200", raising=False)
    monkeypatch.setattr(CpuDevice, "arch", "sm_90a", raising=False)
    monkeypatch.setattr(CpuDevice, "memory", lambda device: (1 << 40, (1 << 40) + 70), raising=False)
    monkeypatch.setitem(GPUS, "H200", Gpu(90, 132, f32=1e9, tensor=1e10, memory=1e9))
    assert train("train.steps=1", out=Path("gpu")) == 0
    (step,) = metrics("gpu")
    products = 16 * (48 + 16 + 2 * 64 + 384) + 2 * 16 * 16  # of a token: the matmuls, and attention over T
    assert step["mfu"] == pytest.approx(step["tokens_per_s"] * 3 * 2 * products / 1e9, rel=1e-3)
    assert step["mfu"] < step["sol"] < 1  # memory limits some of it
    assert step["memory"] == 70
