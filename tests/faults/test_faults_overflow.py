"""fp16 and its loss scale in the simulator: overflows skip their step and lower it, and are neither faults nor spikes;
a run that resumes has the bits of one that was not interrupted; an overflow of one rank is one of all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import foreign_files as foreign
import numpy as np
import pytest
import small_run
from forked_ranks import Summing, on_ranks

import core
from core import Ranks
from core.cli import run as core_command
from core.engine import Engine, Settings
from core.engine.settings import LossScale
from core.errors import NumericsError
from core.graph import load_model
from core.loader import load_registry
from core.ranks.group import ALONE
from core.train.run import read_lines

SIZES = {"V": 67, "C": 16, "H": 2, "L": 1, "S": 16, "T": 16, "B": 2}
REGISTRY = load_registry()
LOUD = "transformer.h.0.mlp.c_fc.weight"


def engine_of(start: float, ranks: Ranks = ALONE, precision: str = "fp16", growth: int = 2) -> Engine:
    rules = LossScale(start, growth)
    how = {"dims": SIZES, "optimizer": "adamw", "options": {"clip": 1.0}, "loss_scale": rules, "precision": precision}
    device = "cpu" if precision == "f32" else "sim"
    engine = Engine(load_model("gpt2_124m", REGISTRY), REGISTRY, Settings(device=device, **how), None, ranks)
    engine.initialize(7)
    return engine


def batch(number: int) -> dict[str, Any]:
    rows = np.random.default_rng(number).integers(0, SIZES["V"], (2, 17)).astype(np.int32)
    return {"tokens": rows[:, :-1], "targets": rows[:, 1:]}


def bits(engine: Engine) -> list[bytes]:
    return [array.tobytes() for array in engine.parameters().values()]


def test_an_overflow_changes_nothing_but_the_scale_and_a_finite_step_is_that_of_f32() -> None:
    engine, exact = engine_of(2.0**24), engine_of(0.0, precision="f32")
    before, seen = bits(engine), []
    for _ in range(12):
        record = engine.step([batch(0), batch(1)], 1e-2)
        seen.append((record.loss_scale, record.overflow, record.ok))
        if record.ok:
            break
        assert record.overflow and not record.halted and bits(engine) == before and engine.updates == 0
    scales = [scale for scale, _, _ in seen]
    assert len(seen) > 2 and scales == [2.0**24 / 2**n for n in range(len(seen))]
    truth = exact.step([batch(0), batch(1)], 1e-2)
    assert record.norm == pytest.approx(truth.norm, rel=2e-3) and record.loss == pytest.approx(truth.loss, rel=1e-4)
    assert engine.scaling.overflows == len(seen) - 1 and truth.loss_scale is None
    for (name, ours), (_, theirs) in zip(engine.parameter_gradients(), exact.parameter_gradients(), strict=True):
        assert np.linalg.norm(ours - theirs) <= 5e-3 * np.linalg.norm(theirs), name
    assert np.isfinite(engine.gradients(batch(3))[1]["wte.weight"]).all()
    quiet = engine_of(0.0)  # its scale is that of the tokens: 8 for each of 64
    first = quiet.step([batch(0), batch(1)], 1e-2)
    assert (first.ok, first.loss_scale) == (True, 512)
    assert quiet.step([batch(2), batch(3)], 1e-2).ok and quiet.scaling.factor == 1024  # two good steps
    assert LossScale().first(0) == 8 and LossScale(start=4.0).first(100) == 4


def on_sim(*words: str) -> int:
    settings = ("precision=fp16", "train.loss_scale=16777216", "train.loss_scale_steps=2", "train.check=false")
    return core_command(["train", "small.toml", "--device", "sim", *words, *(f"--set={one}" for one in settings)])


def test_a_run_says_and_counts_its_skipped_steps_and_resumes_bit_for_bit(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.write(workdir, small_run.unwatched(train={"steps": 12, "checkpoint_every": 6}))
    assert on_sim("--out", "whole") == 0
    shown = capsys.readouterr().out
    assert shown.count("skipped, loss scale 16,777,216 -> 8,388,608") == 1 and "warning" not in shown
    lines = read_lines(Path("whole/metrics.jsonl"))
    skipped = [line["step"] for line in lines if line.get("skipped")]
    assert skipped[0] == 1 and len(skipped) < 12 and lines[-1]["overflows"] == len(skipped)
    assert not list(Path("whole").glob("crash*"))
    shutil.copytree("whole", "again")
    shutil.rmtree("again/checkpoints/step_00000012")
    assert on_sim("--out", "again", "--resume") == 0
    for file in ("model.safetensors", "optimizer.safetensors"):
        a, b = (Path(run, "checkpoints/step_00000012", file).read_bytes() for run in ("whole", "again"))
        assert a == b, file
    again = read_lines(Path("again/metrics.jsonl"))
    kept = ("step", "loss", "norm", "loss_scale", "overflows", "skipped")
    assert [[line.get(name) for name in kept] for line in again[-6:]] == [
        [line.get(name) for name in kept] for line in lines[-6:]
    ]
    for words in ("sample whole --prompt the --tokens 2", "eval whole --data val.txt --tokens 64"):
        assert core_command([*words.split(), "--device", "cpu", "--json"]) == 0, "its weights are f32"


def test_overflows_down_to_the_least_scale_end_the_run_with_the_step_and_the_op(
    workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients that are too large for fp16 at any scale, by a weight of the loss."""
    small_run.write(workdir, small_run.unwatched(model="loud.toml"))
    Path("loud.toml").write_text('extends = "gpt2_124m"\nloss = { loss = 1e8 }\n')
    words = ["train", "small.toml", "--device", "sim", "--set=precision=fp16", "--set=train.loss_scale=4"]
    assert core_command([*words, "--set=train.check=false", "--out", "run"]) == 5
    captured = capsys.readouterr()
    assert "skipped, loss scale 2 -> 1" in captured.out
    assert "step 3/6: loss is " in captured.err and "at loss scale 1: node " in captured.err
    assert "the loss scale is at its least" in captured.err and "Traceback" not in captured.err
    assert "nothing was updated" in captured.err and list(Path("run").glob("crash-step_00000003"))


def test_an_overflow_on_one_rank_skips_the_step_on_all() -> None:
    def work(group: Ranks) -> None:
        group.__class__ = Summing
        engine = engine_of(64.0, group)
        before, loud = bits(engine), {"loss": np.full((2, 16), 1e6)}
        first = engine.step([batch(group.rank)], 1e-2, seeds=[loud if group.rank else {}])
        assert (first.ok, first.overflow, engine.scaling.factor) == (False, True, 32) and bits(engine) == before
        second = engine.step([batch(group.rank)], 1e-2)
        assert (second.ok, second.loss_scale, engine.scaling.factor) == (True, 32, 32) and bits(engine) != before

    assert on_ranks(2, work) == [0] * 2


def loud_folder(path: Path, value: float) -> Path:
    """The golden GPT-2 as transformers stores it, with one weight of this size."""
    tensors = foreign.hf_tensors()
    tensors[LOUD] = tensors[LOUD].copy()
    tensors[LOUD][3, 2] = value  # Hugging Face stores it transposed
    return foreign.hf_folder(path, tensors)


def test_a_weight_without_a_number_in_the_precision_is_named_where_it_is_loaded_or_exported(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud_folder(workdir / "loud", 70_000)
    loud_folder(workdir / "louder", 3.4e38)
    words = "1 of 2,304 elements would be infinity in fp16, such as 70000 at"
    with pytest.raises(NumericsError) as caught:
        core.load("loud", device="sim", precision="fp16")
    assert f"parameter h.0.fc.weight: {words} [2, 3]" in caught.value.message
    assert caught.value.hint == "precision bf16 or f32 or f64 has room for them"
    before = sorted(workdir.iterdir())
    assert core_command(["export", "loud", "--to", "hf", "--precision", "fp16", "--out", "there"]) == 5
    assert f"tensor {LOUD}: {words} [3, 2]" in capsys.readouterr().err
    for to in ("hf", "llmc"):
        assert core_command(["export", "louder", "--to", to, "--precision", "bf16", "--out", "there"]) == 5
        assert "infinity in bf16, such as 3.4e+38 at [" in capsys.readouterr().err
    assert sorted(workdir.iterdir()) == before, "nothing is left of an export that was refused"
    assert core_command(["export", "loud", "--to", "hf", "--precision", "bf16", "--out", "there"]) == 0


def test_a_format_that_has_no_fp16_is_not_asked_for_it(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign.hf_folder(workdir / "hf")
    assert core_command(["export", "hf", "--to", "llmc", "--precision", "fp16"]) == 2
    assert "an llm.c file holds f32 or bf16, not fp16" in capsys.readouterr().err
    assert core_command(["export", "hf", "--to", "llama2c", "--precision", "bf16"]) == 2
    assert "a llama2.c file holds f32, not bf16" in capsys.readouterr().err


def test_fp16_is_refused_in_words_on_the_cpu(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run.write(workdir, small_run.unwatched())
    assert core_command(["train", "small.toml", "--device", "cpu", "--set=precision=fp16"]) == 2
    assert "expected one of f32, f64 on cpu" in capsys.readouterr().err
