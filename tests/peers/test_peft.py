"""Adapters in PEFT's format, read by peft: its logits are ours."""

from __future__ import annotations

import lora_runs
import numpy as np
import pytest

import core
from core import cli


def test_peft_reads_the_adapters_and_computes_our_logits(tmp_path, monkeypatch):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    lora_runs.write(tmp_path)
    assert lora_runs.train("base_run.toml", "--out", "base") == lora_runs.train("lora_run.toml", "--out", "lora") == 0
    assert cli.run(["export", "base", "--to", "hf", "--out", "hf"]) == 0
    assert cli.run(["lora", "save", "lora", "--out", "adapter", "--base", "hf"]) == 0
    model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained("hf"), "adapter").eval()
    tokens = np.random.default_rng(1).integers(0, 257, (2, 16))
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(theirs, core.load("lora").logits(tokens), atol=2e-5)
    assert np.abs(theirs - core.load("base").logits(tokens)).max() > 0.01


def test_adapters_that_peft_saves_are_read(tmp_path, monkeypatch):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    lora_runs.write(tmp_path)
    assert lora_runs.train("base_run.toml", "--out", "base") == 0
    assert cli.run(["export", "base", "--to", "hf", "--out", "hf"]) == 0
    how = {"target_modules": ["c_attn", "c_fc"], "init_lora_weights": False, "use_rslora": True, "fan_in_fan_out": True}
    config = peft.LoraConfig(r=3, lora_alpha=7, task_type="CAUSAL_LM", **how)
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained("hf"), config).eval()
    model.save_pretrained("adapter")
    assert cli.run(["lora", "apply", "base", "adapter", "--out", "applied"]) == 0
    tokens = np.random.default_rng(1).integers(0, 257, (2, 16))
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    ours = core.load("applied").logits(tokens)
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * np.abs(theirs).max())
    assert np.abs(ours - core.load("base").logits(tokens)).max() > 0.01
