"""The models against transformers' Olmo2ForCausalLM, from logits to ten AdamW steps, decoding, and the way out."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import core
from core.errors import CheckpointError
from core.graph import load_model

spec = spec_from_file_location("olmo_cases", Path(__file__).with_name("cases.py"))
cases = module_from_spec(spec)
spec.loader.exec_module(cases)
CASES, peer = cases.CASES, cases.peer

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


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
    case = CASES["groups"]
    case.build().float().save_pretrained(tmp_path)
    found = core.load(tmp_path).logits(case.batch["tokens"])
    assert peer.distance(found, case.golden["logits"]) < peer.LOGITS


def test_the_first_olmo_is_refused_by_name(tmp_path):
    """Whose norms have no weights and lie elsewhere."""
    with pytest.raises(CheckpointError, match="no model answers to OlmoForCausalLM"):
        core.load(CASES["all"].folder(tmp_path / "hf", architectures=["OlmoForCausalLM"]))


PUBLISHED = {"olmo2_1b": 1_484_916_736, "olmo2_7b": 7_298_617_344}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    assert load_model(name, peer.registry()).build(peer.registry()).parameter_count == PUBLISHED[name]
