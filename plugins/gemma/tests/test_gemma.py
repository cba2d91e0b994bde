"""The models compared with transformers' GemmaForCausalLM: one head of keys for all queries, and as many as of queries.

`CASES[name].check(write=True)` writes a case's golden values.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import core
from core import CheckpointError
from core.testing import LOGITS, ModelCase, distance, load_model, shared_registry

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    name: ModelCase(
        model, {"K": K, "D": 6, "eps": 1e-5}, peer="GemmaForCausalLM", golden=GOLDEN / f"{name}.safetensors"
    )
    for name, model, K in (("one", "gemma_2b", 1), ("all", "gemma_7b", 4))
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def computes(path, case):
    return distance(core.load(path).logits(case.batch["tokens"]), case.golden_values["logits"]) < LOGITS


@each_case
def test_the_model_agrees_with_transformers_trained_decoded_and_exported(case):
    case.check(("auto", "references"))


@each_case
def test_a_folder_is_loaded_and_generates_through_the_cache_as_without(case, tmp_path):
    case.check_loaded(core.load(case.folder(tmp_path / "hf")))


def test_the_published_files_say_gelu_and_mean_its_approximation(tmp_path):
    changes = {"hidden_act": "gelu", "rope_parameters": ..., "rope_theta": 10000.0}
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
    assert load_model(name, shared_registry()).build(shared_registry()).parameter_count == PUBLISHED[name]
