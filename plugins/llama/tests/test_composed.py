"""gpt2_rope: GPT-2 with rotary positions and RMSNorm is a file of a few lines over gpt2_124m, and trains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import core
from core import cli
from core.testing import load_model, shared_registry

FILE = Path(__file__).parent.parent / "models/gpt2_rope.toml"
DIMS = {"B": 2, "T": 16, "V": 260, "C": 32, "H": 2, "L": 2}
SMALL = [*(f"dims.{k}={v}" for k, v in DIMS.items()), "train.steps=20", "train.tokens_per_step=32", "optimizer.lr=1e-2",
         "train.val_tokens=32", "train.sample_tokens=4", "data.tokenizer=bytes", "schedule.warmup=2"]  # fmt: skip


def lines_of(path):
    return [line for line in path.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]


def test_the_file_has_under_fifteen_lines_and_what_it_replaces_is_gone():
    assert len(lines_of(FILE)) < 15 and 'extends  = "gpt2_124m"' in FILE.read_text("utf-8")
    graph = load_model("gpt2_rope", shared_registry()).build(shared_registry())
    ops = {node.op.name for node in graph.nodes}
    assert {"rope", "rmsnorm"} <= ops and not {"position", "layernorm"} & ops
    assert graph.parameter_count == 124_439_808 - 1024 * 768 - 25 * 768  # learned positions, biases of 25 norms


def test_its_run_config_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "gpt2_rope", "--device", "cpu", "--out", "run", *(f"--set={key}" for key in SMALL)]
    assert cli.run(words) == 0
    losses = [json.loads(line)["loss"] for line in Path("run/metrics.jsonl").read_text("utf-8").splitlines()]
    assert len(losses) == 20 and losses[0] == pytest.approx(np.log(DIMS["V"]), rel=0.05) and losses[-1] < losses[0] - 1
    model = core.load("run")
    prompt = model.tokenizer.encode("import")
    tokens = model.generate(prompt, max_new_tokens=6, temperature=0)
    whole = list(prompt)
    for _ in range(6):
        whole.append(int(model.logits(whole)[0, -1, : model.tokenizer.vocab_size].argmax()))
    assert tokens.tolist() == whole, "rotary positions go on where the cache ends"
    refused = [cli.run(["export", "run", "--to", program, "--out", "out"]) for program in ("hf", "llmc")]
    assert refused == [3, 3], "no other program has this model"
