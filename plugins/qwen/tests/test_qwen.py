"""The models against transformers' Qwen2ForCausalLM, from logits to ten AdamW steps and decoding."""

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


def test_what_transformers_saves_is_read_with_all_that_it_writes(tmp_path):
    pytest.importorskip("transformers")
    case = next(iter(CASES.values()))
    case.build().float().save_pretrained(tmp_path)
    found = core.load(tmp_path).logits(case.batch["tokens"])
    assert peer.distance(found, case.golden["logits"]) < peer.LOGITS


def test_a_sliding_window_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="use_sliding_window"):
        core.load(CASES["tied"].folder(tmp_path / "hf", use_sliding_window=True))


PUBLISHED = {"qwen2_05b": 494_032_768, "qwen2_7b": 7_615_616_512}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, peer.registry()).build(peer.registry()).parameter_count == PUBLISHED[name]
