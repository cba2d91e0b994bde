"""Runs from imported weights: their tokenizer and ends, schedules, optimizers and checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
from library_tokenizers import write_model
from trained_run import run as ran

import core
from core import checkpoint
from core.data.shards import FORMATS
from core.tokenizers.folder import read_folder

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


CONFIG = """
model = "{model}"
weights = "{weights}"
[dims]
B = 2
T = 8
[data]
train = "{train}"
{more}
[train]
steps = 2
tokens_per_step = 16
[optimizer]
name = "adamw"
lr = 1e-3
[schedule]
name = "constant"
"""


def config_for(here, name="run", model="imported/model.toml", weights="imported", train="a.txt", more=""):
    (here / f"{name}.toml").write_text(CONFIG.format(model=model, weights=weights, train=train, more=more))
    return f"{name}.toml"


@pytest.fixture
def imported(here, capsys):
    folder = write_model(here, generation={"eos_token_id": [2, 9]})
    ran(capsys, "import", folder, "imported")
    (here / "a.txt").write_text("the cat sat on the mat " * 40)
    return here


def test_weights_bring_their_tokenizer_and_ends_or_refuse_another(imported, capsys):
    for weights, out in (("imported", "a"), ("hf", "b")):
        said = ran(capsys, "train", config_for(imported, weights=weights), "--device", "cpu", "--out", out)
        assert f"that of the weights at {weights}" in said.out + said.err
        run = core.load(out)
        assert run.tokenizer.hash == read_folder(imported / "hf").hash
        state = json.loads((imported / out / "checkpoints/step_00000002/state.json").read_text())
        assert state["generation"]["config"] == {"eos_token_id": [2, 9]}
    for asked in ("bytes", "bpe", "gpt2"):
        said = ran(capsys, "train", config_for(imported, more=f'tokenizer = "{asked}"'), "--device", "cpu", code=6).err
        assert asked in said and "came with the tokenizer" in said
    own = config_for(imported, more='tokenizer = "hf/tokenizer.json"')
    ran(capsys, "train", own, "--device", "cpu", "--out", "c")


def gpt2_shard(path):
    """A shard of GPT-2's format without a sidecar."""
    header = np.zeros(256, "<i4")
    header[:3] = FORMATS[0].magic, FORMATS[0].version, 95
    path.write_bytes(header.tobytes() + np.arange(5, 100, dtype="<u2").tobytes())
    return path


def test_ids_of_another_tokenizer_are_neither_scored_nor_trained(imported, capsys):
    shard = gpt2_shard(imported / "gpt2.bin")
    questions = np.zeros(256, "<i4")
    questions[:3] = 20240522, 1, 1
    example = [65535, 32, 0, 2, 4, 1, 5, 1, 6, 1, 7, 1, 8, 2, 9, 10]
    (imported / "hs.bin").write_bytes(questions.tobytes() + np.array(example, "<u2").tobytes())
    assert "gpt2's tokenizer" in ran(capsys, "eval", "hf", "--hellaswag", "hs.bin", "--device", "cpu", code=6).err
    assert "holds the ids of gpt2" in ran(capsys, "eval", "hf", "--data", shard, "--device", "cpu", code=6).err
    config = config_for(imported, train="gpt2.bin")
    assert "holds the ids of gpt2" in ran(capsys, "train", config, "--device", "cpu", code=6).err


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"name": "cosine", "warmup": 50}, "warmup is 50 steps and the run 2"),
        ({"name": "wsd", "decay": 9}, "decay is 9 steps and the run 2"),
        ({"name": "wsd", "warmup": 1, "decay": 2}, "more than the run's 2"),
        ({"name": "wsd", "warmup": 1, "decay": 1}, ""),
        ({"name": "constant", "warmup": 2}, ""),
    ],
)
def test_a_schedule_that_does_not_fit_into_the_run_is_said(imported, capsys, schedule, said):
    words = [f"--set=schedule.{key}={value}" for key, value in schedule.items()]
    shown = ran(capsys, "train", config_for(imported), "--device", "cpu", "--out", "r", *words)
    warned = [line for line in (shown.out + shown.err).splitlines() if "[schedule]" in line or "schedule.name" in line]
    assert said in "\n".join(warned) and bool(said) == any("warning" in line for line in warned)


@pytest.mark.parametrize(
    ("optimizer", "option", "value"),
    [("adamw", "betas", "[1.0,0.95]"), ("adamw", "betas", "[0.9,1.0]"), ("adamw", "betas", "[0.9,1.5]"),
     ("muon", "betas", "[0.9,1.0]"), ("muon", "momentum", "1.0")],
)  # fmt: skip
def test_betas_and_momentum_of_1_or_more_are_refused_by_their_key(imported, capsys, optimizer, option, value):
    words = (f"--set=optimizer.name={optimizer}", f"--set=optimizer.{option}={value}")
    said = ran(capsys, "train", config_for(imported), "--device", "cpu", *words, code=2).err
    assert f"optimizer.{option}" in said and "below 1" in said


def test_another_optimizer_on_a_resume_begins_with_its_own_states(imported, capsys):
    config = config_for(imported)
    ran(capsys, "train", config, "--device", "cpu", "--out", "r")
    words = ("--resume", "--set=train.steps=3", "--set=optimizer.name=muon")
    shown = ran(capsys, "train", config, "--device", "cpu", "--out", "r", *words)
    assert "optimizer state: adamw's (m, v) is left out" in shown.out + shown.err
    ran(capsys, "train", config, "--device", "cpu", "--out", "fresh", "--set=train.steps=2")
    kept, now = (checkpoint.load(imported / f"r/checkpoints/step_0000000{n}") for n in (2, 3))
    assert now.state["updates"] == 1 and kept.state["updates"] == 2
    names = [n for n in now.optimizer["m"] if n.endswith("norm_1.weight")]
    assert not np.allclose(now.optimizer["m"][names[0]], kept.optimizer["m"][names[0]])


def test_the_last_checkpoint_is_kept_by_default_and_the_best_where_asked(imported, capsys):
    (imported / "v.txt").write_text("the dog sat on the log " * 9)
    config = config_for(imported, more='val = "v.txt"')
    words = ("--set=train.steps=6", "--set=train.val_every=1", "--set=train.keep_best=true", "--set=train.keep_last=1")
    ran(capsys, "train", config, "--device", "cpu", "--out", "r", "--set=optimizer.lr=0.3", *words)
    lines = [json.loads(line) for line in (imported / "r/metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["val_loss"])["step"]
    kept = sorted(int(p.name[5:]) for p in (imported / "r/checkpoints").glob("step_*"))
    assert kept == sorted({best, 6})
    ran(capsys, "train", config, "--device", "cpu", "--out", "n", "--set=train.checkpoint_every=0")
    assert not list((imported / "n/checkpoints").glob("step_*"))
