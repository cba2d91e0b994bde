"""benchmarks/precision.py: its peer is the same model, its verdict sees a run that strays; both are as exact as
PyTorch's, in the simulator. Its 300 steps are not run here.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/precision.py"
SMALL = {"B": 2, "T": 17, "S": 17, "V": 128, "P": 128, "C": 64, "H": 2, "L": 1}


@pytest.fixture(scope="module")
def precision():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        spec = importlib.util.spec_from_file_location("benchmark_precision", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        patch.setattr(module, "DIMS", SMALL)
        yield module


@pytest.fixture(scope="module")
def weights(precision):
    built = precision.engine("cpu", "f32")
    built.initialize(3)
    return {name: np.array(w) for name, w in built.parameters().items()}


def test_pytorchs_model_is_ours(precision, weights):
    pytest.importorskip("torch")
    one = precision.batch(0)
    exact, peer = precision.ours("cpu", "f64", weights, one), precision.torchs("cpu", weights, one, "float64")
    far = {n: np.linalg.norm(peer[n] - true) / np.linalg.norm(true) for n, true in exact.items()}
    assert set(peer) == set(exact) and max(far.values()) < 1e-10, far


@pytest.mark.parametrize(("dtype", "most"), [("bf16", 1e-2), ("fp16", 1.25e-3)])
def test_logits_and_gradients_in_16_bits_are_no_farther_from_f64_than_pytorchs(precision, weights, dtype, most):
    pytest.importorskip("torch")
    rows = precision.distances("sim", weights, precision.batch(0), dtype)
    assert len(rows) == 1 + len(weights) and all(most / 100 < row["ours"] < most for row in rows)
    assert not [row for row in rows if row["ratio"] > 1.05]


def test_a_run_that_strays_further_than_seeds_do_is_seen_in_its_window(precision):
    seeds = np.linspace(-1, 1, 5)[:, None] * 0.1
    f32 = 3 + seeds + np.zeros((5, 3 * precision.WINDOW))
    bf16 = f32[:2].copy()
    bf16[:, precision.WINDOW : 2 * precision.WINDOW] += 0.5 * seeds.std(ddof=1)
    assert not precision.straying(precision.curves(f32, bf16))
    bf16[:, 2 * precision.WINDOW :] += 1.1 * seeds.std(ddof=1)
    (row,) = precision.straying(precision.curves(f32, bf16))
    assert row["to"] == 3 * precision.WINDOW and row["bias"] == pytest.approx(row["away"])
