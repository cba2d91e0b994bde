"""The best checkpoint by validation: kept by default, named by BEST, and right after whatever ends a run."""

from __future__ import annotations

import json
import shutil

import pytest
import small_run

from core import checkpoint, cli
from core.checkpoint import pointers
from core.errors import CheckpointError
from core.train import setup
from core.train.refusals import due_steps
from core.train.run import read_lines

CONFIG = small_run.config(
    dims={"S": 16, "V": None},
    data={"train": "train.txt"},
    train={"tokens_per_step": 32, "val_every": 1, "val_tokens": 64, "keep_last": 1},
    optimizer={"lr": 0.3},
)


@pytest.fixture
def here(workdir, monkeypatch):
    monkeypatch.setattr(setup, "check_estimate", lambda *arguments: None)
    (workdir / "small.toml").write_text(CONFIG)
    (workdir / "train.txt").write_text("the cat sat on the mat. " * 40)
    (workdir / "val.txt").write_text("the dog sat on the log. " * 9)
    return workdir


def ran(capsys, *words, code=0):
    assert cli.run([str(word) for word in words]) == code, capsys.readouterr()
    return capsys.readouterr()


def trained(capsys, *words, code=0):
    return ran(capsys, "train", "small.toml", "--device", "cpu", *words, code=code)


def kept(run):
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))


def best_of(run):
    """(step, loss) of the best validation by metrics.jsonl."""
    lines = [line for line in read_lines(run / "metrics.jsonl") if "val_loss" in line]
    best = min(lines, key=lambda line: line["val_loss"])
    return best["step"], best["val_loss"]


def test_the_best_is_kept_by_default_and_every_command_takes_it(here, capsys):
    trained(capsys, "--out", "r")
    step, loss = best_of(here / "r")
    assert step < 6, "the last is the best: this test would see nothing"
    assert kept(here / "r") == [step, 6] and (here / "r/BEST").read_text() == f"step_{step:08d}\n"
    assert checkpoint.find(here / "r/BEST").step == step and checkpoint.find(here / "r/LATEST").step == 6

    measured = json.loads(ran(capsys, "eval", "r/BEST", "--json").out)
    assert measured["loss"] == pytest.approx(loss, rel=1e-6)
    ran(capsys, "sample", "r/BEST", "--tokens", "2")
    ran(capsys, "export", "r/BEST", "--to", "hf", "--out", "hf")
    trained(capsys, "--out", "w", "--set", 'weights = "r/BEST"', "--set=train.steps=1")
    (listed,) = [run for run in json.loads(ran(capsys, "runs", "--folder", ".", "--json").out) if run["name"] == "r"]
    assert (listed["saved"], listed["best_saved"]) == (6, step)
    assert "best" in ran(capsys, "runs", "--folder", ".").out.splitlines()[0].split()


@pytest.mark.parametrize("word", ["train.keep_best=false", "train.checkpoint_every=0"])
def test_a_run_that_keeps_no_best_has_no_such_file_and_says_why(word, here, capsys):
    trained(capsys, "--out", "r", f"--set={word}")
    assert kept(here / "r") == ([6] if "best" in word else []) and not (here / "r/BEST").exists()
    said = ran(capsys, "sample", "r/BEST", code=2)
    assert not kept(here / "r") or "train.keep_best is false" in said.err


def test_resume_repairs_the_pointer_and_forgets_a_best_that_is_damaged(here, capsys):
    trained(capsys, "--out", "r")
    step, _ = best_of(here / "r")
    (here / "r/BEST").write_text("step_00000099\n")
    assert checkpoint.find(here / "r/BEST").step == step  # the newest checkpoint knows better
    said = trained(capsys, "--out", "r", "--resume", "--set=train.steps=7")
    assert f"BEST named step_00000099; now it names step_{step:08d}" in said.out + said.err
    assert kept(here / "r") == sorted({best_of(here / "r")[0], 7})

    (checkpoint.find(here / "r/BEST").path / "model.safetensors").unlink()
    trained(capsys, "--out", "r", "--resume", "--set=train.steps=8")
    assert pointers.said(here / "r", "BEST") == "step_00000008" and kept(here / "r") == [8]

    trained(capsys, "--out", "r", "--resume", "--set=train.steps=9", "--set=train.keep_best=false")
    assert not (here / "r/BEST").exists() and kept(here / "r") == [9]


def test_a_run_from_another_runs_checkpoint_has_a_best_of_its_own(here, capsys):
    trained(capsys, "--out", "r")
    trained(capsys, "--out", "s", "--from", "r", "--set=train.steps=7")
    assert kept(here / "s") == [7] and pointers.said(here / "s", "BEST") == "step_00000007"


def test_a_best_that_the_disk_refuses_is_none(here, capsys, monkeypatch):
    save, refused = checkpoint.save, []

    def full(folder, step, contents):
        if contents.state["best_step"] == step and step > 1 and not refused:
            refused.append(step)
            raise CheckpointError(f"{folder}: cannot be saved: no room")
        return save(folder, step, contents)

    monkeypatch.setattr(checkpoint, "save", full)
    trained(capsys, "--out", "r", "--set=optimizer.lr=0.001", "--set=train.save_errors=continue", "--set=train.steps=4")
    assert refused == [2]
    for step in kept(here / "r"):
        best = checkpoint.load(here / f"r/checkpoints/step_{step:08d}").state["best_step"]
        assert best in kept(here / "r")
    assert pointers.said(here / "r", "BEST") in {f"step_{step:08d}" for step in kept(here / "r")}


def test_the_room_for_checkpoints_counts_the_best(here, capsys, monkeypatch):
    from core import files

    trained(capsys, "--out", "r")
    size = sum(path.stat().st_size for path in (here / "r/checkpoints/step_00000006").glob("*.safetensors"))
    shutil.rmtree(here / "r")
    monkeypatch.setattr(files, "free_bytes", lambda path: int(2.5 * size))
    said = trained(capsys, "--out", "r", code=7)
    assert "3 checkpoints" in said.err and not (here / "r").exists()
    trained(capsys, "--out", "r", "--set=train.keep_best=false")


@pytest.mark.parametrize(
    ("steps", "done", "every", "want"),
    [
        (6, 0, [1], 6),
        (6, 0, [], 1),
        (6, 6, [], 0),
        (10, 0, [4], 3),
        (12, 4, [4], 2),
        (12, 0, [4, 6], 4),
        (13, 5, [4, 6], 4),
    ],
)
def test_the_steps_that_save_are_counted_once_each(steps, done, every, want):
    asked = {step for step in range(done + 1, steps + 1) if step == steps or any(step % n == 0 for n in every)}
    assert due_steps(steps, done, every) == want == len(asked)


TERMS = """
extends = "gpt2_124m"
[graph]
early = { op = "matmul", in = "x0", features = "P", bias = false }
early_a = { op = "cross_entropy", in = ["early", "targets"], classes = "V" }
early_b = { op = "cross_entropy", in = ["early", "targets"], classes = "V" }
[loss]
loss = 1.0
"early_*" = 0.25
"""


def test_each_loss_term_has_its_own_value_and_best_names_one(here, capsys):
    (here / "terms.toml").write_text(TERMS)
    line = ("--out", "t", "--set", "model=terms.toml", "--set", "train.steps=3", "--set", "train.best=early_*")
    out = trained(capsys, *line).out
    lines = read_lines(here / "t/metrics.jsonl")
    for record in lines:
        for total, losses in (("loss", "losses"), ("val_loss", "val_losses")):
            own = record[losses]
            assert own.keys() == {"loss", "early_*"} and own["early_*"] > own["loss"], "the sum of two terms"
            assert own["loss"] + 0.25 * own["early_*"] == pytest.approx(record[total], rel=1e-5)
    assert f" of loss {lines[0]['losses']['loss']:.4f}, early_* {lines[0]['losses']['early_*']:.4f} | norm" in out
    best = min(lines, key=lambda record: record["val_losses"]["early_*"])
    state = checkpoint.find(here / "t").state
    assert (state["best_val"], state["best_step"]) == (best["val_losses"]["early_*"], best["step"])
    assert "(best early_* so far)" in out
    out = trained(capsys, *line[:4], "--set", "train.steps=4", "--resume").out  # another best: a new one begins
    assert checkpoint.find(here / "t").state["best_val"] == read_lines(here / "t/metrics.jsonl")[-1]["val_loss"]
    error = trained(capsys, *line[2:6], "--set", "train.best=erly_*", "--out", "u", code=2).err
    assert 'has no term "erly_*"; did you mean "early_*"? (it has loss, early_*)' in error


def test_a_run_ends_early_and_hooks_see_its_start_and_end(here, capsys):
    (here / "seen.py").write_text(
        "def core_train_start(run, training):\n    print('start', run.name, training.step, training.steps)\n"
        "    training.after_update(lambda step: print('updated', step))\n"
        "def core_train_end(training):\n    print('end', training.step, training.saved)\n"
    )
    words = ("--out", "e", "--set", "train.early_stop=1", "--set", "train.steps=40", "--plugin", "seen.py")
    out = trained(capsys, *words).out
    last = read_lines(here / "e/metrics.jsonl")[-1]["step"]
    assert last < 40 and f"ended after step {last}/40: 1 validations without a new best (early_stop = 1); in e" in out
    assert checkpoint.find(here / "e").step == last
    assert "start e 0 40" in out and out.count("updated") == last and f"end {last} {last}" in out
    out = trained(capsys, *words, "--resume").out
    assert f"start e {last} 40" in out and "updated" not in out and f"ended after step {last}/40" in out
    (here / "bad.py").write_text("def core_train_start(training):\n    training.stopp('x')\n")
    error = trained(capsys, "--plugin", "bad.py", "--out", "f", code=3).err
    assert "core_train_start of bad raised AttributeError" in error and not checkpoint.steps(here / "f/checkpoints")
