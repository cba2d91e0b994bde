"""The models against transformers' GemmaForCausalLM, from logits to ten AdamW steps, decoding, and the way out."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import core
from core.errors import CheckpointError
from core.graph import load_model

spec = spec_from_file_location("gemma_cases", Path(__file__).with_name("cases.py"))
cases = module_from_spec(spec)
spec.loader.exec_module(cases)
CASES, peer = cases.CASES, cases.peer

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def computes(path, case):
    return peer.distance(core.load(path).logits(case.batch["tokens"]), case.golden["logits"]) < peer.LOGITS


@each_case
def test_the_committed_values_are_what_transformers_computes_here(case):
    pytest.importorskip("transformers")
    case.holds_what_transformers_computes_here()


@pytest.mark.parametrize("choice", ["auto", "references"])
@each_case
def test_logits_gradients_and_ten_adamw_losses_agree_with_transformers(case, choice):
    case.agrees(choice)
    case.trains(choice)


@each_case
def test_decoding_through_the_cache_gives_what_the_whole_gives(case, tmp_path):
    case.decodes()
    case.generates(core.load(case.folder(tmp_path / "hf")))


@each_case
def test_an_export_holds_what_came_and_transformers_computes_the_same_with_it(case, tmp_path):
    case.exports(tmp_path)


def test_what_transformers_saves_is_read_with_all_that_it_writes(tmp_path):
    pytest.importorskip("transformers")
    CASES["one"].build().float().save_pretrained(tmp_path)
    assert computes(tmp_path, CASES["one"])


def test_the_published_files_say_gelu_and_mean_its_approximation(tmp_path):
    changes = {"hidden_act": "gelu", "rope_parameters": None, "rope_theta": 10000.0}
    assert computes(CASES["one"].folder(tmp_path / "hf", **changes), CASES["one"])


def test_another_activation_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="hidden_activation"):
        core.load(CASES["one"].folder(tmp_path / "hf", hidden_activation="silu"))


def test_weights_of_norms_start_at_zero_beside_their_offset_of_one():
    engine = CASES["one"].engine()
    engine.initialize(0)
    norms = {name: value for name, value in engine.parameters().items() if "norm" in name}
    assert len(norms) == 5 and not any(value.any() for value in norms.values())


PUBLISHED = {"gemma_2b": 2_506_172_416, "gemma_7b": 8_537_680_896}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, peer.registry()).build(peer.registry()).parameter_count == PUBLISHED[name]
