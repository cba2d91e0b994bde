"""The models compared with transformers' MistralForCausalLM: with a window and without.

`CASES[name].check(write=True)` writes a case's golden values.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import core
from core.testing import ModelCase, load_model, shared_registry

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    name: ModelCase(
        model, {"W": window, "base": 10000.0}, peer="MistralForCausalLM", golden=GOLDEN / f"{name}.safetensors"
    )
    for name, model, window in (("window", "mistral_7b_v01", 5), ("all", "mistral_7b", 0))
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_the_model_agrees_with_transformers_trained_decoded_and_exported(case):
    case.check(("auto",))


@each_case
def test_a_folder_is_loaded_and_generates_through_the_cache_as_without(case, tmp_path):
    case.check_loaded(core.load(case.folder(tmp_path / "hf")))


def test_a_query_sees_a_window_of_tokens_and_no_more():
    case = CASES["window"]
    model = case.engine()
    tokens = case.batch["tokens"].copy()
    before = model.logits(tokens)
    tokens[:, 0] = (tokens[:, 0] + 1) % case.graph.dims["V"]
    changed = (model.logits(tokens) != before).any((0, 2))
    reach = case.graph.dims["L"] * (case.graph.dims["W"] - 1)  # each layer looks so far back
    assert changed[: reach + 1].all() and not changed[reach + 1 :].any()


PUBLISHED = {"mistral_7b": 7_248_023_552, "mistral_7b_v01": 7_241_732_096}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, shared_registry()).build(shared_registry()).parameter_count == PUBLISHED[name]
