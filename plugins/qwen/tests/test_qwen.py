"""The models against transformers' Qwen2ForCausalLM and Qwen3ForCausalLM, from logits to ten AdamW steps, decoding, and
the way out."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import core
from core.errors import CheckpointError
from core.graph import load_model

spec = spec_from_file_location("qwen_cases", Path(__file__).with_name("cases.py"))
cases = module_from_spec(spec)
spec.loader.exec_module(cases)
CASES, peer = cases.CASES, cases.peer

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_case
def test_the_committed_values_are_what_transformers_computes_here(case):
    pytest.importorskip("transformers")
    case.holds_what_transformers_computes_here()


@each_case
def test_logits_gradients_and_ten_adamw_losses_agree_with_transformers(case):
    case.agrees("auto")
    case.trains("auto")


@each_case
def test_decoding_through_the_cache_gives_what_the_whole_gives(case, tmp_path):
    case.decodes()
    case.generates(core.load(case.folder(tmp_path / "hf")))


@each_case
def test_a_folder_computes_what_transformers_computes(case, tmp_path):
    found = core.load(case.folder(tmp_path / "hf")).logits(case.batch["tokens"])
    assert peer.distance(found, case.golden["logits"]) < peer.LOGITS


@each_case
def test_an_export_holds_what_came_and_transformers_computes_the_same_with_it(case, tmp_path):
    case.exports(tmp_path)


@pytest.mark.parametrize("name", ["tied", "qwen3_tied"])
def test_what_transformers_saves_is_read_with_all_that_it_writes(name, tmp_path):
    pytest.importorskip("transformers")
    case = CASES[name]
    case.build().float().save_pretrained(tmp_path)
    found = core.load(tmp_path).logits(case.batch["tokens"])
    assert peer.distance(found, case.golden["logits"]) < peer.LOGITS


@pytest.mark.parametrize("name", ["tied", "qwen3_tied"])
def test_a_sliding_window_is_refused_by_name(name, tmp_path):
    with pytest.raises(CheckpointError, match="use_sliding_window"):
        core.load(CASES[name].folder(tmp_path / "hf", use_sliding_window=True))


@pytest.mark.parametrize("choice", ["references", "unfused"])
def test_other_variants_agree_with_transformers_too(choice):
    CASES["qwen3_apart"].agrees(choice)


PUBLISHED = {"qwen2_05b": 494_032_768, "qwen2_7b": 7_615_616_512}
PUBLISHED |= {"qwen3_06b": 596_049_920, "qwen3_8b": 8_190_735_360, "qwen3_30b_a3b": 30_532_122_624}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, peer.registry()).build(peer.registry()).parameter_count == PUBLISHED[name]
