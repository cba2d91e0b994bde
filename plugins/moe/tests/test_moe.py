"""The models against transformers' MixtralForCausalLM, from logits to ten AdamW steps, decoding, and the way out."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import core
from core.errors import CheckpointError
from core.graph import load_model

spec = spec_from_file_location("moe_cases", Path(__file__).with_name("cases.py"))
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
    """The load-balancing loss included, with a weight that shows."""
    case.agrees("auto")
    case.trains("auto")


def test_the_kernels_train_with_transformers_losses_in_the_simulator():
    nodes = {"route": "naive", "expert_matmul": "grouped", "combine": "vector", "balance": "naive"}
    CASES["apart"].simulates("f32", nodes)


@each_case
def test_decoding_through_the_cache_gives_what_the_whole_gives(case, tmp_path):
    case.decodes()
    case.generates(core.load(case.folder(tmp_path / "hf")))


@each_case
def test_an_export_holds_what_came_and_transformers_computes_the_same_with_it(case, tmp_path):
    case.exports(tmp_path)


def test_what_transformers_saves_is_read_with_all_that_it_writes(tmp_path):
    pytest.importorskip("transformers")
    case = CASES["apart"]
    case.build().float().save_pretrained(tmp_path)
    found = core.load(tmp_path).logits(case.batch["tokens"])
    assert peer.distance(found, case.golden["logits"]) < peer.LOGITS


def test_noise_in_the_router_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="router_jitter_noise"):
        core.load(CASES["tied"].folder(tmp_path / "hf", router_jitter_noise=0.1))


def test_a_token_says_nothing_to_another_through_its_experts():
    """Nothing is dropped for want of room: what an expert gives a token does not depend on who else came."""
    case = CASES["apart"]
    model, tokens = case.engine(), case.batch["tokens"]
    alone = [model.logits(tokens[b : b + 1])[0] for b in range(len(tokens))]
    for b, found in enumerate(model.logits(tokens)):
        assert peer.distance(found, alone[b]) < peer.LOGITS


PUBLISHED = {"mixtral_8x7b": (46_702_792_704, 12_879_925_248), "moe_125m": (293_494_272, 123_624_960)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters_and_of_active_ones(name):
    graph = load_model(name, peer.registry()).build(peer.registry())
    experts = sum(p.size for p in graph.parameters.values() if len(p.shape) == 3)
    idle = experts * (graph.dims["E"] - graph.dims["A"]) // graph.dims["E"]
    assert (graph.parameter_count, graph.parameter_count - idle) == PUBLISHED[name]
