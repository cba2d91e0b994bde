"""The models compared with transformers' MixtralForCausalLM: logits, ten AdamW steps, decoding, and export."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import core
from core import CheckpointError, cli
from core.testing import LOGITS, ModelCase, distance, load_model, load_peer, peer_loss, shared_registry

GOLDEN = Path(__file__).parent / "golden"
LOSSES = GOLDEN / "losses.json"  # case -> transformers' own loss without its term and with it
PEER = "MixtralForCausalLM"


def with_balance(experts, active, weight):
    """Cross-entropy and their load-balancing loss of each layer; their own takes all layers' tokens for one layer's."""

    def loss(model, tokens, targets):
        from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

        routers = model(tokens, output_router_logits=True).router_logits
        terms = [load_balancing_loss_func((logits,), experts, active) for logits in routers]
        return peer_loss(model, tokens, targets) + weight * sum(terms) / len(terms)

    return loss


def case_of(file, model, **dims):
    dims = {"E": 5, "A": 2, "F": 8, "balance": 0.5, "base": 10000.0, **dims}
    objective = with_balance(dims["E"], dims["A"], dims["balance"])
    noise = {"router_jitter_noise": 0.0}
    return ModelCase(model, dims, noise, PEER, GOLDEN / f"{file}.safetensors", objective)


CASES = {"tied": case_of("tied", "moe_125m"), "apart": case_of("apart", "mixtral_8x7b", E=4, A=3)}
ALL = {**CASES, "one layer": case_of("apart", "mixtral_8x7b", L=1)}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def their_loss(case, routers):
    """transformers' own loss of the batch's tokens, each the target of the one before. routers: as its config."""
    import torch

    torch.set_num_threads(1)
    with TemporaryDirectory() as place:
        model = load_peer(case.folder(Path(place) / "hf"), PEER)
    tokens = torch.tensor(case.batch["tokens"], dtype=torch.long)
    model.config.output_router_logits = routers
    model.router_aux_loss_coef = case.dims["balance"]
    return float(model(tokens, labels=tokens, output_router_logits=routers).loss.detach())


def their_losses():
    return {name: {"false": their_loss(case, False), "true": their_loss(case, True)} for name, case in ALL.items()}


@each_case
def test_the_model_agrees_with_transformers_trained_decoded_and_exported(case):
    """The load-balancing loss included, with a weight that shows."""
    case.check(("auto",))


def test_the_kernels_train_with_transformers_losses_in_the_simulator():
    nodes = {"route": "naive", "expert_matmul": "grouped", "combine": "vector", "balance": "naive"}
    CASES["apart"].simulate("f32", nodes)


@each_case
def test_generation_through_the_cache_gives_the_tokens_of_the_uncached_path(case, tmp_path):
    model, prompt = core.load(case.folder(tmp_path / "hf", output_router_logits=False)), case.batch["tokens"][:, :4]
    whole = prompt
    for _ in range(20):
        whole = np.concatenate([whole, model.logits(whole)[:, -1:].argmax(-1).astype(np.int32)], axis=1)
    np.testing.assert_array_equal(model.generate(prompt, max_new_tokens=20, temperature=0), whole)


def shifted(case):
    tokens = case.batch["tokens"]
    return tokens, np.concatenate([tokens[:, 1:], np.full_like(tokens[:, :1], -1)], 1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [False, ...])
def test_a_folder_without_router_logits_has_transformers_loss_without_a_term(name, value, tmp_path):
    case, losses = ALL[name], json.loads(LOSSES.read_text())[name]
    assert abs(losses["true"] / losses["false"] - 1) > 0.05
    with warnings.catch_warnings(action="error"):
        model = core.load(case.folder(tmp_path / "hf", output_router_logits=value))
    tokens, targets = shifted(case)
    assert model.loss(tokens, targets) == pytest.approx(losses["false"], rel=2e-6)
    result = model.gradients(tokens, targets)
    alone = core.load(tmp_path / "hf", dims={"balance": 0}).gradients(tokens, targets)
    assert all(np.array_equal(result[n], alone[n]) for n in alone)


@pytest.mark.parametrize("name", ALL)
def test_a_folder_with_router_logits_has_a_term_and_a_warning_that_names_the_difference(name, tmp_path):
    case, losses = ALL[name], json.loads(LOSSES.read_text())[name]
    with pytest.warns(UserWarning, match="load-balancing term .* mean over layers"):
        model = core.load(case.folder(tmp_path / "hf", output_router_logits=True))
    loss = model.loss(*shifted(case))
    assert loss > 1.05 * losses["false"]
    assert (loss == pytest.approx(losses["true"], rel=2e-6)) == (case.graph.dims["L"] == 1)


def test_the_committed_losses_are_transformers_own():
    pytest.importorskip("transformers")
    fresh, committed = their_losses(), json.loads(LOSSES.read_text())
    assert {name: pytest.approx(value, rel=1e-6) for name, value in committed.items()} == fresh


@pytest.mark.parametrize("value", [False, True])
def test_what_config_json_says_of_router_logits_goes_out_as_it_came(value, tmp_path):
    case = CASES["apart"]
    folder = case.folder(tmp_path / "hf", output_router_logits=value)
    assert cli.run(["export", str(folder), "--to", "hf", "--out", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["output_router_logits"] is value and written["router_aux_loss_coef"] == 0.5


def test_a_run_may_have_another_weight_of_the_term_than_the_folder_it_starts_from(tmp_path):
    case = CASES["apart"]
    folder = case.folder(tmp_path / "hf", output_router_logits=False)
    graph = load_model(case.name, shared_registry()).build(
        shared_registry(), case.sizes | {"balanced": 1, "balance": 0.1}
    )
    assert set(case.format.fit(folder, graph, shared_registry()).weights) == set(graph.parameters)


def test_eval_prints_cross_entropy_and_the_term_apart(tmp_path, capsys, monkeypatch):
    case = CASES["apart"]
    case.folder(tmp_path / "hf", output_router_logits=True)
    monkeypatch.chdir(tmp_path)
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, 200  # llm.c's shards: magic, version, tokens
    Path("s.bin").write_bytes(header.tobytes() + (np.arange(200) % case.graph.dims["V"]).astype(np.uint16).tobytes())
    words = ["eval", "hf", "--data", "s.bin", "--tokens", "60"]
    with pytest.warns(UserWarning, match="mean over layers"):
        assert cli.run([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["terms"] == ["h.*.balance"] and result["loss"] > result["nll"] + 0.1
    with pytest.warns(UserWarning, match="mean over layers"):
        assert cli.run(words) == 0
    out = capsys.readouterr().out
    assert f"cross-entropy  {result['nll']:.4f}" in out
    assert f"other terms    {result['loss'] - result['nll']:.4f} of that loss: h.*.balance" in out


def test_noise_in_the_router_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="router_jitter_noise"):
        core.load(CASES["tied"].folder(tmp_path / "hf", router_jitter_noise=0.1))


def test_a_token_says_nothing_to_another_through_its_experts():
    """No token is dropped for want of room: an expert's output for a token does not depend on its other tokens."""
    case = CASES["apart"]
    model, tokens = case.engine(), case.batch["tokens"]
    alone = [model.logits(tokens[b : b + 1])[0] for b in range(len(tokens))]
    for b, logits in enumerate(model.logits(tokens)):
        assert distance(logits, alone[b]) < LOGITS


PUBLISHED = {"mixtral_8x7b": (46_702_792_704, 12_879_925_248), "moe_125m": (293_494_272, 123_624_960)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters_and_of_active_ones(name):
    graph = load_model(name, shared_registry()).build(shared_registry())
    experts = sum(p.size for p in graph.parameters.values() if len(p.shape) == 3)
    idle = experts * (graph.dims["E"] - graph.dims["A"]) // graph.dims["E"]
    assert (graph.parameter_count, graph.parameter_count - idle) == PUBLISHED[name]
