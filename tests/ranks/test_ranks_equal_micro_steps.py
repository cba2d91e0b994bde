"""Two ranks have the gradients of one rank's two micro-steps, bit for bit where no parameter is tied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpi_runs import NEEDS_MPI, steps_on_ranks

pytestmark = NEEDS_MPI
SMALL = "B = 2\nT = 8\nV = 67\nC = 16\nH = 2\nL = 2"
UNTIED = f"""
extends = "gpt2_124m"
[dims]
{SMALL}
S = 8
[graph]
logits = {{ op = "matmul", in = "ln_f", features = "P", bias = false }}
"""
EXPERTS = """
extends = "moe_125m"
[dims]
B = 2
T = 8
S = 8
V = 67
C = 16
H = 2
K = 1
L = 1
E = 4
F = 16
[block.layer]
drop = { op = "dropout", in = "mix", p = 0.2 }
y    = { op = "add", in = ["r", "drop"] }
"""
TIED = f'extends = "gpt2_124m"\n[dims]\n{SMALL}\nS = 8\n'
OF_64 = """
extends = "gpt2_124m"
[dims]
B = 2
T = 8
S = 8
V = 67
C = 64
H = 2
L = 1
[graph]
logits = { op = "matmul", in = "ln_f", features = "P", bias = false }
"""
MODELS = {"untied": UNTIED, "experts": EXPERTS, "tied": TIED, "of_64": OF_64}
GROUPS = [{"match": ["*.bias", "wte.*"], "lr_factor": 0.5}, {"match": ["h.*"], "weight_decay": 0.2}]
SLICED = {"model": "of_64", "options": {"clip": 0.5}, "freeze": ["h.0.fc.bias"], "shard": True, "groups": GROUPS}
PAIRS: dict[str, dict[str, Any]] = {
    "untied": {"model": "untied", "shard": False},
    "tied": {"model": "tied", "shard": False},
    "sim": {"model": "tied", "shard": False, "device": "sim"},
    "experts": {"model": "experts", "optimizer": "muon", "freeze": ["*.qkv.*"], "shard": False, "micro_steps": 2},
    "slices of adamw": {**SLICED, "optimizer": "adamw"},
    "slices of muon": {**SLICED, "optimizer": "muon"},
}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of each of PAIRS the numbers of one rank, "NAME, one", and of two, "NAME, two"; and of sums of one part and of
    several."""
    folder = tmp_path_factory.mktemp("steps")
    for name, text in MODELS.items():
        (folder / name).with_suffix(".toml").write_text(text)
    cases: dict[str, dict[str, Any]] = {}
    for name, given in PAIRS.items():
        case = {**given, "model": f"{given['model']}.toml"}
        cases[f"{name}, two"] = case
        cases[f"{name}, one"] = {**case, "alone": True, "micro_steps": 2 * case.get("micro_steps", 1)}
    cases |= {"one part": {"model": "tied.toml"}, "parts": {"model": "tied.toml", "parts": [300, 700]}}
    return steps_on_ranks(folder, cases)


def test_an_untied_models_parameters_are_bit_for_bit_the_same(steps: dict[str, dict[str, Any]]) -> None:
    one, two = steps["untied, one"], steps["untied, two"]
    assert one.keys() == two.keys() and sum(name.startswith("gradient.") for name in one) > 20
    for name, expected in one.items():
        assert np.array_equal(expected, two[name]), name


def test_only_the_tied_gradient_differs_and_by_rounding_alone(steps: dict[str, dict[str, Any]]) -> None:
    one, two = steps["tied, one"], steps["tied, two"]
    gradients = [name for name in one if name.startswith("gradient.")]
    assert [name for name in gradients if not np.array_equal(one[name], two[name])] == ["gradient.wte.weight"]
    for name in gradients:
        assert np.linalg.norm(one[name] - two[name]) <= 1e-6 * np.linalg.norm(one[name])


def test_experts_with_muon_frozen_parameters_and_a_loss_of_two_terms(steps: dict[str, dict[str, Any]]) -> None:
    one, two = steps["experts, one"], steps["experts, two"]
    for name, expected in one.items():
        if name.startswith(("loss", "norm")):
            assert two[name] == pytest.approx(expected, rel=1e-6), name
        elif name.startswith("gradient."):
            assert np.linalg.norm(two[name] - expected) <= 1e-6 * np.linalg.norm(expected), name


def test_gradients_that_are_summed_in_parts_have_the_same_bits(steps: dict[str, dict[str, Any]]) -> None:
    for name, expected in steps["one part"].items():
        assert np.array_equal(expected, steps["parts"][name]) or name.startswith("gradient."), name


def test_in_the_simulator_tied_and_position_gradients_differ_alone_through_the_host(
    steps: dict[str, dict[str, Any]],
) -> None:
    one, two = steps["sim, one"], steps["sim, two"]
    gradients = [name for name in one if name.startswith("gradient.")]
    differ = {name for name in gradients if not np.array_equal(one[name], two[name])}
    assert differ <= {"gradient.wte.weight", "gradient.x0.weight"} and len(gradients) > 20
    for name in (name for name in one if name.startswith(("loss", "norm", "gradient"))):
        assert np.linalg.norm(one[name] - two[name]) <= 1e-6 * np.linalg.norm(one[name]), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_slices_have_the_bits_of_the_whole(optimizer: str, steps: dict[str, dict[str, Any]]) -> None:
    """Where slices are cut at chunks; else within rounding."""
    alone, sharded = steps[f"slices of {optimizer}, one"], steps[f"slices of {optimizer}, two"]
    for name, expected in alone.items():
        if name.startswith("gradient."):
            continue
        if optimizer == "adamw":
            assert np.array_equal(sharded[name], expected), name
        elif name.startswith(("loss", "norm")):
            assert sharded[name] == pytest.approx(expected, rel=1e-6), name
