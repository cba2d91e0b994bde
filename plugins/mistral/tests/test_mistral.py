"""The models against transformers' MistralForCausalLM, from logits to ten AdamW steps and decoding."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import core
from core.graph import load_model

spec = spec_from_file_location("mistral_cases", Path(__file__).with_name("cases.py"))
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


def test_what_transformers_saves_is_read_with_all_that_it_writes(tmp_path):
    pytest.importorskip("transformers")
    case = next(iter(CASES.values()))
    case.build().float().save_pretrained(tmp_path)
    found = core.load(tmp_path).logits(case.batch["tokens"])
    assert peer.distance(found, case.golden["logits"]) < peer.LOGITS


def test_a_query_sees_a_window_of_tokens_and_no_more():
    case = CASES["window"]
    model = case.engine()
    tokens = case.batch["tokens"].copy()
    before = model.logits(tokens)
    tokens[:, 0] = (tokens[:, 0] + 1) % case.dims["V"]
    changed = (model.logits(tokens) != before).any((0, 2))
    reach = case.dims["L"] * (case.dims["W"] - 1)  # each layer looks so far back
    assert changed[: reach + 1].all() and not changed[reach + 1 :].any()


PUBLISHED = {"mistral_7b": 7_248_023_552, "mistral_7b_v01": 7_241_732_096}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, peer.registry()).build(peer.registry()).parameter_count == PUBLISHED[name]
