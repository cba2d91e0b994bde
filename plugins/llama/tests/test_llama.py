"""The models against transformers' LlamaForCausalLM, from logits to ten AdamW steps, and decoding against the whole.

The golden values (cases.py) are transformers'. Where it is installed, they are computed afresh too.
"""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import core
from core.errors import CheckpointError
from core.graph import load_model

spec = spec_from_file_location("llama_cases", Path(__file__).with_name("cases.py"))
cases = module_from_spec(spec)
spec.loader.exec_module(cases)
CASES, peer = cases.CASES, cases.peer

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_choice = pytest.mark.parametrize("choice", peer.CHOICES)


# --- against transformers ----------------------------------------------------------------------------------------


@each_case
def test_the_committed_values_are_what_transformers_computes_here(case):
    pytest.importorskip("transformers")
    case.holds_what_transformers_computes_here()


@each_choice
@each_case
def test_logits_loss_and_every_gradient_agree_with_transformers(case, choice):
    case.agrees(choice)


@each_choice
@each_case
def test_ten_adamw_losses_agree_with_transformers(case, choice):
    case.trains(choice)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_kernels_train_with_transformers_losses_in_the_simulator(precision):
    variants = {"rmsnorm": "warp", "rope": "token", "mlp_swiglu": "composed", "swiglu": "vector"}
    CASES["tied"].simulates(precision, variants)


@each_case
def test_cached_decoding_gives_the_logits_of_the_whole(case):
    case.decodes()


@pytest.mark.parametrize("device", ["cpu", "sim"])
def test_a_long_prompt_and_the_tokens_behind_it_share_a_cache(device):
    """It goes through rope and attention apart; they go through both in one."""
    built = CASES["scaled"].engine(dims={"S": 80}, device=device)
    tokens = np.random.RandomState(0).randint(0, built.graph.dims["V"], (1, 67)).astype(np.int32)
    session = built.session(1, 67)
    ops = [{row["op"] for row in built.report(session.plan(T)).table()} for T in (64, 1)]
    assert "rope" in ops[0] and "rope_attention" in ops[1] and not {"rope", "attention"} & ops[1]
    session.feed(tokens[:, :65])
    found = [session.feed(tokens[:, at : at + 1])[0] for at in (65, 66)]
    assert peer.distance(found, built.logits(tokens)[0, 65:]) < peer.LOGITS


@each_case
def test_generation_through_the_cache_gives_the_tokens_of_the_uncached_path(case, tmp_path):
    case.generates(core.load(case.folder(tmp_path / "hf")))


# --- Hugging Face's folders --------------------------------------------------------------------------------------


def computes(model, case):
    return peer.distance(model.logits(case.batch["tokens"]), case.golden["logits"]) < peer.LOGITS


@each_case
def test_a_folder_is_found_to_be_that_model_and_computes_what_transformers_computes(case, tmp_path):
    model = core.load(case.folder(tmp_path / "hf"))
    assert model.graph.name == case.model and computes(model, case)


@each_case
def test_an_export_holds_what_came_and_transformers_computes_the_same_with_it(case, tmp_path):
    case.exports(tmp_path)


def test_a_folder_from_before_rope_parameters_is_read(tmp_path):
    scaled, tied = CASES["scaled"], CASES["tied"]
    rope = scaled.config_json()["rope_parameters"]
    old = {"rope_parameters": None, "rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    assert computes(core.load(scaled.folder(tmp_path / "scaled", **old)), scaled)
    old = {"rope_parameters": None, "rope_theta": 10000.0, "head_dim": None, "attention_bias": None}
    path = tied.folder(tmp_path / "tied", **old)
    config = json.loads((path / "config.json").read_text()) | {"rope_scaling": None}
    (path / "config.json").write_text(json.dumps(config))
    assert computes(core.load(path), tied)


REFUSED = {
    "a scaling that is not LLaMA 3's": ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type"),
    "an old one": ({"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear"}}, "rope_scaling"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act"),
    "biases": ({"attention_bias": True}, "attention_bias"),
    "a key that nobody knows": ({"sliding_window": 4}, 'key "sliding_window" is unknown'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_computed_wrongly_is_refused_by_name(what, tmp_path):
    changes, named = REFUSED[what]
    with pytest.raises(CheckpointError, match=named):
        core.load(CASES["tied"].folder(tmp_path / "hf", **changes))


def test_what_transformers_saves_is_read_with_all_that_it_writes(tmp_path):
    pytest.importorskip("transformers")
    CASES["scaled"].build().float().save_pretrained(tmp_path)
    assert computes(core.load(tmp_path), CASES["scaled"])


# --- sizes -------------------------------------------------------------------------------------------------------

PUBLISHED = {"tinyllama_1b": 1_100_048_384, "llama3_1b": 1_235_814_400, "llama3_8b": 8_030_261_248}
PUBLISHED |= {"llama_7b": 6_738_415_616, "smollm2_135m": 134_515_008}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, peer.registry()).build(peer.registry()).parameter_count == PUBLISHED[name]
