"""Two ranks have the gradients of one rank's two micro-steps, bit for bit where no parameter is tied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mpi_runs import NEEDS_MPI, steps_on

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


def write(folder: Path, text: str) -> Path:
    model = folder / "model.toml"
    model.write_text(text)
    return model


def test_an_untied_models_parameters_are_bit_for_bit_the_same(tmp_path: Path) -> None:
    model = write(tmp_path, UNTIED)
    one, two = (steps_on(n, model, tmp_path / f"{n}.npz", 2 // n, shard=False) for n in (1, 2))
    assert one.keys() == two.keys() and sum(name.startswith("gradient.") for name in one) > 20
    for name, expected in one.items():
        assert np.array_equal(expected, two[name]), name


def test_only_the_tied_gradient_differs_and_by_rounding_alone(tmp_path: Path) -> None:
    one, two = (steps_on(n, write(tmp_path, TIED), tmp_path / f"{n}.npz", 2 // n, shard=False) for n in (1, 2))
    gradients = [name for name in one if name.startswith("gradient.")]
    assert [name for name in gradients if not np.array_equal(one[name], two[name])] == ["gradient.wte.weight"]
    for name in gradients:
        assert np.linalg.norm(one[name] - two[name]) <= 1e-6 * np.linalg.norm(one[name])


def test_experts_with_muon_frozen_parameters_and_a_loss_of_two_terms(tmp_path: Path) -> None:
    model, muon = write(tmp_path, EXPERTS), {"optimizer": "muon", "freeze": ["*.qkv.*"], "shard": False}
    one, two = (steps_on(n, model, tmp_path / f"{n}.npz", 4 // n, **muon) for n in (1, 2))
    for name, expected in one.items():
        if name.startswith(("loss", "norm")):
            assert two[name] == pytest.approx(expected, rel=1e-6), name
        elif name.startswith("gradient."):
            assert np.linalg.norm(two[name] - expected) <= 1e-6 * np.linalg.norm(expected), name


def test_gradients_that_are_summed_in_parts_have_the_same_bits(tmp_path: Path) -> None:
    model = write(tmp_path, TIED)
    whole, parts = (
        steps_on(2, model, tmp_path / f"{n}.npz", 1, **more) for n, more in enumerate(({}, {"parts": (300, 700)}))
    )
    for name, expected in whole.items():
        assert np.array_equal(expected, parts[name]) or name.startswith("gradient."), name


def test_in_the_simulator_tied_and_position_gradients_differ_alone_through_the_host(tmp_path: Path) -> None:
    model = write(tmp_path, TIED)
    one, two = (steps_on(n, model, tmp_path / f"{n}.npz", 2 // n, device="sim", shard=False) for n in (1, 2))
    gradients = [name for name in one if name.startswith("gradient.")]
    differ = {name for name in gradients if not np.array_equal(one[name], two[name])}
    assert differ <= {"gradient.wte.weight", "gradient.x0.weight"} and len(gradients) > 20
    for name in (name for name in one if name.startswith(("loss", "norm", "gradient"))):
        assert np.linalg.norm(one[name] - two[name]) <= 1e-6 * np.linalg.norm(one[name]), name
