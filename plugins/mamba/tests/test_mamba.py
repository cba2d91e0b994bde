"""The ops pass their check, a kernel that decodes wrongly does not; the model is transformers' MambaForCausalLM in
logits, gradients, AdamW steps and greedy tokens, and decodes in constant memory.

`CASE.check(write=True)` writes the golden values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import core
from core.testing import ModelCase, check_op, check_variant, load_registry

GOLDEN = Path(__file__).parent / "golden"
CASE = ModelCase(
    "mamba_130m",
    {"N": 5, "R": 3, "window": 3},
    peer="MambaForCausalLM",
    golden=GOLDEN / "mamba.safetensors",
    undecayed=("*.A_log",),
)
CHECKS = ("forward", "gradient", "decode", "repeat")  # the others are made when a verdict is released
OPS = ("causal_conv", "selective_scan")
# file, its text -> another, and the words of the failure: faults of decoding alone
FAULTS = {
    "the state is not kept": ("selective_scan", "state && chunks == 1) state[lane.at] = h;", "0) state[0] = h;"),
    "it begins at zero": ("selective_scan", "h = state ? state[lane.at] : 0;", "h = 0;"),
    "padding enters the state": ("selective_scan", "there && token < real ?", "there ?"),
    "the window is one token late": ("causal_conv", "int at = j + count - before;", "int at = j + count - before - 1;"),
}


@pytest.fixture(scope="module")
def registry():
    return load_registry(only=["mamba"])


@pytest.mark.parametrize("op", OPS)
def test_the_ops_pass_the_check_on_the_cpu(op, registry):
    check_op(op, device="cpu", registry=registry)


@pytest.mark.parametrize("op, name", [("causal_conv", "naive"), ("selective_scan", "chunked")])
def test_kernels_pass_the_check_in_the_simulator(op, name, registry):
    variant = registry.variant(op, name)
    report = check_variant(registry.op(op), variant, registry, "sim", examples=(1, -2), archs=(), checks=CHECKS)
    assert report.passed, report.describe_failures()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_kernel_that_decodes_wrongly_is_seen(fault, registry, tmp_path):
    op, text, other = FAULTS[fault]
    variant = registry.variant(op, "chunked" if op == "selective_scan" else "naive")
    files = variant.source if isinstance(variant.source, tuple) else (f"{op}.cu",)
    for file in files:
        written = (Path(__file__).parent.parent / "cuda" / file).read_text("utf-8")
        assert text in written or file != f"{op}.cu"
        (tmp_path / file).write_text(written.replace(text, other), "utf-8")
    wrong = type("Wrong", (type(variant),), {"source": tuple(str(tmp_path / file) for file in files)})()
    report = check_variant(
        registry.op(op), wrong, registry, "sim", examples=(1,), archs=(), checks=("decode",), stop=True
    )
    assert report.first.check == "decode", report.first


def test_the_model_agrees_with_transformers_trained_decoded_and_exported():
    CASE.check(("auto",))


def test_greedy_tokens_are_those_of_transformers_and_those_without_a_state(tmp_path):
    folder = CASE.folder(tmp_path / "hf")
    model = core.load(folder)
    CASE.check_loaded(model)
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("transformers").AutoModelForCausalLM.from_pretrained(folder)
    prompt = CASE.batch["tokens"][:, :5]
    theirs = peer.generate(torch.tensor(prompt, dtype=torch.long), max_new_tokens=20, do_sample=False)
    assert np.array_equal(model.generate(prompt, max_new_tokens=20, temperature=0), theirs.numpy())


def test_rows_of_different_lengths_decode_in_the_simulator_as_on_the_cpu():
    tokens, counts = CASE.batch["tokens"], np.array([11, 3], np.int32)
    logits = []
    for device in ("cpu", "sim"):
        session = CASE.engine(device=device).session(2, 16)
        session.feed(tokens, counts)
        logits.append(session.feed(tokens[:, :2]))
    np.testing.assert_allclose(logits[1], logits[0], rtol=2e-5, atol=2e-5)


def test_the_memory_of_a_session_does_not_depend_on_its_length():
    built = CASE.engine()
    states = {built.report(built.session(2, n).plan(1)).memory()["state"] for n in (16, 1_000_000)}
    assert len(states) == 1
