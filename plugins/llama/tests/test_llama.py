"""The models compared with transformers' LlamaForCausalLM, from logits to ten AdamW steps, and decoding with the whole.

The golden values are transformers'; where it is installed, they are computed afresh too.
`CASES[name].check(write=True)` writes those of a case.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import core
from core import CheckpointError
from core.testing import LOGITS, ModelCase, distance, load_model, shared_registry

GOLDEN = Path(__file__).parent / "golden"
PEER = "LlamaForCausalLM"
CASES = {
    "tied": ModelCase("llama_125m", {"K": 4}, peer=PEER, golden=GOLDEN / "tied.safetensors"),
    # heads that are not C / H wide
    "wide": ModelCase("tinyllama_1b", {"D": 6}, peer=PEER, golden=GOLDEN / "wide.safetensors"),
    # of the four pairs, one keeps its speed, one is between, and two are slowed down
    "scaled": ModelCase(
        "llama3_1b",
        {"D": 8, "base": 50.0, "factor": 4.0, "low": 1.0, "high": 3.0, "length": 24},
        peer=PEER,
        golden=GOLDEN / "scaled.safetensors",
    ),
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


# --- compared with transformers ----------------------------------------------------------------------------------


@each_case
def test_the_model_agrees_with_transformers_trained_decoded_and_exported(case):
    """With the fastest variants, with the references, and without fusions."""
    case.check()


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_kernels_train_with_transformers_losses_in_the_simulator(precision):
    variants = {"rmsnorm": "onepass", "rope": "token", "mlp_swiglu": "composed", "swiglu": "vector"}
    CASES["tied"].simulate(precision, variants)


@pytest.mark.parametrize("device", ["cpu", "sim"])
def test_a_long_prompt_and_the_tokens_behind_it_share_a_cache(device):
    """The prompt runs rope and attention as two ops, the later tokens one fused op."""
    built = replace(CASES["scaled"], dims={**CASES["scaled"].dims, "S": 80}).engine(device=device)
    tokens = np.random.RandomState(0).randint(0, built.graph.dims["V"], (1, 67)).astype(np.int32)
    session = built.session(1, 67)
    ops = [{row["op"] for row in built.report(session.plan(T)).table()} for T in (64, 1)]
    assert "rope" in ops[0] and "rope_attention" in ops[1] and not {"rope", "attention"} & ops[1]
    session.feed(tokens[:, :65])
    logits = [session.feed(tokens[:, at : at + 1])[0] for at in (65, 66)]
    assert distance(logits, built.logits(tokens)[0, 65:]) < LOGITS


@each_case
def test_generation_through_the_cache_gives_the_tokens_of_the_uncached_path(case, tmp_path):
    model, prompt = core.load(case.folder(tmp_path / "hf")), case.batch["tokens"][:, :4]
    whole = prompt
    for _ in range(20):
        whole = np.concatenate([whole, model.logits(whole)[:, -1:].argmax(-1).astype(np.int32)], axis=1)
    np.testing.assert_array_equal(model.generate(prompt, max_new_tokens=20, temperature=0), whole)


# --- Hugging Face's folders --------------------------------------------------------------------------------------


def computes(model, case):
    return distance(model.logits(case.batch["tokens"]), case.golden_values["logits"]) < LOGITS


@each_case
def test_a_folder_is_found_to_be_that_model_and_computes_what_transformers_computes(case, tmp_path):
    model = core.load(case.folder(tmp_path / "hf"))
    assert model.graph.name == case.name and computes(model, case)


def test_rope_parameters_of_newer_folders_are_read(tmp_path):
    """transformers 5 has the angles' base and its scaling in one table."""
    scaling = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
    whole = scaling | {"original_max_position_embeddings": 24, "rope_theta": 50.0}
    changes = {"rope_theta": ..., "rope_scaling": ..., "rope_parameters": whole}
    assert computes(core.load(CASES["scaled"].folder(tmp_path / "scaled", **changes)), CASES["scaled"])
    plain = {"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    assert computes(core.load(CASES["tied"].folder(tmp_path / "tied", **plain)), CASES["tied"])


def test_a_folder_from_before_rope_parameters_is_read(tmp_path):
    old = {"rope_scaling": None, "rope_theta": 10000.0, "head_dim": ..., "attention_bias": ...}
    assert computes(core.load(CASES["tied"].folder(tmp_path / "tied", **old)), CASES["tied"])


YARN = {"rope_type": "yarn", "rope_theta": 1e4}
REFUSED = {
    "a scaling that is not LLaMA 3's": ({"rope_theta": ..., "rope_parameters": YARN}, "rope_type"),
    "an old one": ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act"),
    "biases": ({"attention_bias": True}, "attention_bias"),
    "an unknown key": ({"sliding_window": 4}, 'key "sliding_window" is unknown'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_computed_wrongly_is_refused_by_name(case, tmp_path):
    changes, named = REFUSED[case]
    with pytest.raises(CheckpointError, match=named):
        core.load(CASES["tied"].folder(tmp_path / "hf", **changes))


# --- sizes -------------------------------------------------------------------------------------------------------

PUBLISHED = {"tinyllama_1b": 1_100_048_384, "llama3_1b": 1_235_814_400, "llama3_8b": 8_030_261_248}
PUBLISHED |= {"llama_7b": 6_738_415_616, "smollm2_135m": 134_515_008}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, shared_registry()).build(shared_registry()).parameter_count == PUBLISHED[name]
