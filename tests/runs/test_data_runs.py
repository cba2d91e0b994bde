"""Runs on packed conversations and on arrays resume bit for bit within an epoch; the page's example trains."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import small_run
import trained_run
from library_tokenizers import write_tokenizer
from trained_run import run

from core.checkpoint.tensor_file import TensorFile
from core.train.run import read_lines

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
SMALL = ("dims.V=320", "dims.C=16", "dims.H=2", "dims.L=1", "dims.S=128", "dims.T=128", "dims.B=1")
WORDS = ("the cat", "sat on", "the mat", "and the dog", "sat on the log.", "it's 12 o'clock")


@pytest.fixture
def here(tmp_path, monkeypatch):
    return trained_run.enter(tmp_path, monkeypatch)


def write_example(folder):
    """The files of the example in docs/data.md."""
    for name in ("chat_model.toml", "chat.toml"):
        text = re.search(rf"```toml\n# {name}\n(.*?)```", PAGE, re.S)
        (folder / name).write_text(text[1])
    chats = [(WORDS[n % 6], WORDS[n % 5], WORDS[n % 4], WORDS[n % 3]) for n in range(9)]
    lines = [[{"role": r, "content": c} for r, c in zip(("user", "assistant") * 2, c, strict=True)] for c in chats]
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": line}) + "\n" for line in lines))
    (folder / "held_out.jsonl").write_text(json.dumps({"messages": lines[0]}) + "\n")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": f"{w} " * (n % 7 + 1)}) + "\n" for n, w in
                                                enumerate(WORDS * 3)))  # fmt: skip
    write_tokenizer(folder / "folder", "byte_level")


def numbers(folder):
    """Every step's loss, the last val_loss, and all parameters of the last checkpoint, to the last bit."""
    lines = list(read_lines(Path(folder) / "metrics.jsonl"))
    file = TensorFile(max(Path(folder).glob("checkpoints/step_*")) / "model.safetensors")
    return [m["loss"] for m in lines], lines[-1]["val_loss"], {name: file[name].tobytes() for name in file}


def train(capsys, config, out, *settings, code=0):
    words = [word for setting in settings for word in (("--set", setting) if "=" in setting else (setting,))]
    return run(capsys, "train", config, "--device", "cpu", "--out", out, *words, code=code)


def resumes_exactly(capsys, config, *settings):
    said = train(capsys, config, "whole", *settings).out
    train(capsys, config, "halves", *settings, "train.steps=4")
    train(capsys, config, "halves", *settings, "--resume")
    assert numbers("halves") == numbers("whole") and len(numbers("whole")[0]) >= 6
    return said


def test_the_example_of_the_page_trains_resumes_and_answers(here, capsys):
    write_example(here)
    shown = run(capsys, "data", "inspect", "chat.toml", "--rows", "2", *(w for s in SMALL for w in ("--set", s))).out
    assert re.search(r"^chats.jsonl +3 +75.0% +\d+ +\d", shown, re.M), shown
    assert (
        "<s>[user]" in shown and "</s>[assistant]" in shown and "\n    loss" in shown and "document 1: places" in shown
    ), shown
    said = resumes_exactly(capsys, "chat.toml", *SMALL, "schedule.name=constant")
    assert "train: chats.jsonl: 9 documents in" in said and "val loss" in said
    answer = run(capsys, "sample", "whole", "--prompt", "the cat", "--tokens", "5").out
    assert answer.startswith("the cat")
    measured = json.loads(run(capsys, "eval", "whole", "--json").out)
    assert measured["loss"] == pytest.approx(numbers("whole")[1], rel=1e-5)


SEEN = """
inputs = { image = "B 3 C", tokens = "B T : i32 < V", targets = "B T : i32 < V" }
[graph]
seen = { op = "matmul", in = "image", features = "C" }
x1 = { op = "add", in = ["x0", "seen"] }
h = { block = "layer", in = "x1", repeat = "L" }
"""


def test_a_model_with_an_input_of_floats_trains_from_arrays(here, capsys):
    (here / "seen.toml").write_text('extends = "gpt2_124m"\n' + SEEN)
    rng = np.random.default_rng(0)
    np.save("image.npy", rng.standard_normal((7, 3, 16)).astype(np.float32))
    np.save("ids.npy", rng.integers(0, 50, (7, 4)))
    table = {"image": "image.npy", "tokens": "ids.npy", "targets": "ids.npy"}
    sizes = {"V": 50, "T": 3, "B": 2, "S": 4}
    np.save("ids.npy", rng.integers(0, 50, (7, 3)))
    train = {"steps": 7, "tokens_per_step": 12, "val_every": 7, "val_tokens": 21}
    config = small_run.config(model="seen.toml", dims=sizes, data={"train": table, "val": table}, train=train)
    (here / "seen_run.toml").write_text(config)
    resumes_exactly(capsys, "seen_run.toml")
    np.save("image.npy", np.zeros((7, 3, 16)))
    said = run(capsys, "train", "seen_run.toml", "--device", "cpu", "--out", "whole", "--resume", code=6).err
    assert "train: image.npy (7 tokens) changed" in said
    np.save("image.npy", np.full((7, 3, 16), np.inf))
    said = run(capsys, "train", "seen_run.toml", "--device", "cpu", "--out", "other", code=6).err
    assert "image.npy[0, 0, 0] is inf; input image takes finite numbers" in said
