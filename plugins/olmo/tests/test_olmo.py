"""The models compared with transformers' Olmo2ForCausalLM: a head of keys for each of queries, and for every two.

`CASES[name].check(write=True)` writes a case's golden values.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import core
from core import CheckpointError
from core.testing import ModelCase, load_model, shared_registry

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    name: ModelCase(
        model, {"K": K, "base": 10000.0, "eps": 1e-5}, peer="Olmo2ForCausalLM", golden=GOLDEN / f"{name}.safetensors"
    )
    for name, model, K in (("all", "olmo2_1b", 4), ("groups", "olmo2_7b", 2))
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_the_model_agrees_with_transformers_trained_decoded_and_exported(case):
    case.check(("auto", "references"))


@each_case
def test_a_folder_is_loaded_and_generates_through_the_cache_as_without(case, tmp_path):
    case.check_loaded(core.load(case.folder(tmp_path / "hf")))


def test_a_folder_is_not_taken_for_the_first_olmo(tmp_path):
    """The first OLMo's norms have no weights and other places."""
    with pytest.raises(CheckpointError, match='model_type is "olmo2", expected "olmo"'):
        core.load(CASES["all"].folder(tmp_path / "hf", architectures=["OlmoForCausalLM"]))


PUBLISHED = {"olmo2_1b": 1_484_916_736, "olmo2_7b": 7_298_617_344}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, shared_registry()).build(shared_registry()).parameter_count == PUBLISHED[name]
