"""The models compared with transformers' Qwen2ForCausalLM and Qwen3ForCausalLM: a tied head and one of its own.

`CASES[name].check(write=True)` writes a case's golden values.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import core
from core import CheckpointError
from core.testing import CHOICES, ModelCase, load_model, shared_registry

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    name: ModelCase(
        model, {"base": 10000.0, "eps": 1e-5, **dims}, peer=f"{peer}ForCausalLM", golden=GOLDEN / f"{name}.safetensors"
    )
    for name, model, peer, dims in (
        ("tied", "qwen2_05b", "Qwen2", {}),
        ("apart", "qwen2_7b", "Qwen2", {}),
        ("qwen3_tied", "qwen3_06b", "Qwen3", {"D": 6}),
        ("qwen3_apart", "qwen3_8b", "Qwen3", {"D": 6}),
    )
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_the_model_agrees_with_transformers_trained_decoded_and_exported(case):
    case.check(CHOICES if case.name == "qwen3_8b" else ("auto",))


@each_case
def test_a_folder_is_loaded_and_generates_through_the_cache_as_without(case, tmp_path):
    case.check_loaded(core.load(case.folder(tmp_path / "hf")))


@pytest.mark.parametrize("name", ["tied", "qwen3_tied"])
def test_a_sliding_window_is_refused_by_name(name, tmp_path):
    with pytest.raises(CheckpointError, match="use_sliding_window"):
        core.load(CASES[name].folder(tmp_path / "hf", use_sliding_window=True))


PUBLISHED = {"qwen2_05b": 494_032_768, "qwen2_7b": 7_615_616_512}
PUBLISHED |= {"qwen3_06b": 596_049_920, "qwen3_8b": 8_190_735_360, "qwen3_30b_a3b": 30_532_122_624}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, shared_registry()).build(shared_registry()).parameter_count == PUBLISHED[name]
