"""Muon: the update compared with the formula and torch's, the stepped parameters, and a model that trains with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.cli import run as core_command
from core.testing import Engine, Settings, check_op, load_model, load_registry

DIMS = {"V": 61, "C": 32, "H": 2, "L": 2, "S": 16, "B": 2, "T": 8}
BATCH = np.random.default_rng(3).integers(0, 61, (2, 9)).astype(np.int32)
BATCH = {"tokens": BATCH[:, :-1], "targets": BATCH[:, 1:]}


@pytest.fixture(scope="module")
def registry():
    return load_registry()


def engine_of(registry, **settings):
    settings = {"optimizer": "muon", "precision": "f64", "dims": DIMS, **settings}
    engine = Engine(load_model("gpt2_124m", registry), registry, Settings(**settings))
    engine.initialize(1)
    return engine


def test_the_update_passes_the_op_check():
    check_op("muon_update", device="cpu")


def test_the_iteration_takes_singular_values_to_about_one(registry):
    update = registry.variant("muon_update", "reference")
    u = np.random.default_rng(0).standard_normal((40, 24)) * np.geomspace(1, 30, 24)
    left, _, right = np.linalg.svd(u, full_matrices=False)
    result = update.orthogonal(u, 5)
    values = np.diag(left.T @ result @ right.T)
    assert values.min() > 0.6 and values.max() < 1.3
    assert np.abs(left.T @ result @ right.T - np.diag(values)).max() < 1e-12, "singular vectors stay"
    assert np.allclose(update.orthogonal(u.T, 5), result.T)


def test_matrices_inside_are_stepped_by_muon_and_all_else_by_adamw(registry):
    muon, adamw = engine_of(registry), engine_of(registry, optimizer="adamw")
    before = {name: array.copy() for name, array in muon.parameters().items()}
    for engine in (muon, adamw):
        engine.step([BATCH], 1e-2)
    for name, value in muon.parameters().items():
        same = np.array_equal(value, adamw.parameters()[name])
        assert same is (value.ndim == 1 or name in ("wte.weight", "x0.weight")), name
        if not same:
            moved = (value - before[name] * (1 - 1e-2 * 0.1)) / (1e-2 * 0.2 * max(value.shape) ** 0.5)
            singular = np.linalg.svd(moved, compute_uv=False)
            assert singular.max() < 1.3, f"{name}: a step along singular values of about 1"


def test_matrices_that_the_config_names_go_to_adamw(registry):
    named = engine_of(registry, options={"adamw": ["*"]})
    plain = engine_of(registry, optimizer="adamw")
    for _ in range(3):
        assert named.step([BATCH], 1e-2) == plain.step([BATCH], 1e-2)


def test_steps_are_those_of_torch(registry):
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    rng, reference = np.random.default_rng(5), registry.variant("muon_update", "reference")
    weight = rng.standard_normal((48, 32))
    theirs = torch.nn.Parameter(torch.tensor(weight))
    optimizer = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    ours, m, moved = weight.copy(), np.zeros_like(weight), 0.0
    for _ in range(4):
        grad = rng.standard_normal(weight.shape)
        theirs.grad = torch.tensor(grad)
        optimizer.step()
        m += (1 - 0.95) * (grad - m)
        x = reference.orthogonal(0.95 * m + 0.05 * grad, 5)
        ours -= 0.02 * (0.2 * 48**0.5 * x + 0.1 * ours)
    moved = np.linalg.norm(ours - weight)
    assert np.linalg.norm(ours - theirs.detach().numpy()) < 0.02 * moved, "torch iterates in bf16"


def test_it_learns_a_batch(registry):
    engine = engine_of(registry)
    losses = [engine.step([BATCH], 3e-3).loss for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_config_names_it_and_a_resumed_run_is_the_unbroken_one(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "muon.toml").write_text(
        'extends = "tiny"\n[optimizer]\nname = "muon"\nmomentum = 0.9\n[data]\ntokenizer = ["bytes"]\n'
        "[train]\nsteps = 4\ntokens_per_step = 16\nval_every = 0\nsample_every = 0\ncheckpoint_every = 2\n"
        "[dims]\nB = 2\nT = 8\nC = 32\nL = 1\n"
    )
    small = ["train", "muon.toml", "--device", "cpu"]
    assert core_command([*small, "--out", "whole"]) == 0
    assert core_command([*small, "--out", "parts", "--set", "train.steps=2", "--set", "schedule.name=constant"]) in (
        0,
        2,
    )
    assert core_command([*small, "--out", "again", "--from", "whole/checkpoints/step_00000002"]) == 0
    manifests = [
        json.loads((tmp_path / run / "checkpoints/step_00000004/manifest.json").read_text())["files"]
        for run in ("whole", "again")
    ]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert manifests[0][name]["sha256"] == manifests[1][name]["sha256"]
