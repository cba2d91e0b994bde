"""Groups of parameters: a learning rate and a weight decay of their own, by globs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from small_graph import HEAD, batch, engine, model

from core.config.load import load_config
from core.errors import UsageError
from core.op import Optimizer
from core.plan.layout import ParameterGroup
from core.train.wiring import groups_of

GRAPH = 'x = { op = "matmul", in = "wte", features = "C" }\n' + HEAD
GROUPS = (
    ParameterGroup(("*.weight",), 0.5, 0.3),
    ParameterGroup(("wte.*", "x.bias"), 0.1),
    ParameterGroup(("y.*",), None, 0.0),
)
RATES = {"wte.weight": (0.1, 0.3), "x.weight": (0.5, 0.3), "x.bias": (0.1, 0.0), "y.weight": (0.5, 0.0)}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_parameter_has_its_own_rate_and_decay(tmp_path, optimizer):
    """After one step the moments are the gradient: AdamW changes an element by lr (g / |g| + decay w)."""
    built = engine(model(tmp_path, GRAPH), optimizer=optimizer, groups=GROUPS)
    before = {name: value.copy() for name, value in built.parameters().items()}
    gradients = built.gradients(batch())[1]
    assert built.step([batch()], 0.01).ok
    for name, (factor, decay) in RATES.items():
        lr, g, old = 0.01 * factor, gradients[name], before[name]
        change = (old - built.parameters()[name]) / lr - decay * old
        if optimizer == "muon" and name in ("x.weight", "y.weight"):  # its matrices: a step of its size
            assert 0.1 < np.sqrt((change**2).mean()) < 0.4
        else:
            np.testing.assert_allclose(change, g / (np.abs(g) + 1e-8), atol=1e-9)


def test_without_groups_one_launch_updates_all(tmp_path):
    built = engine(model(tmp_path, GRAPH))
    assert [(s.first, s.last) for s in built.layout.stretches] == [(0, built.layout.trainable)]


WRONG = [
    (
        {"groups": [ParameterGroup(("x.weihgt",), 0.5)]},
        'match "x.weihgt" matches no parameter that trains; did you mean',
    ),
    (
        {"groups": [ParameterGroup(("wte.*",), 0.5)], "freeze": ["wte.*"]},
        'match "wte.*" matches no parameter that trains',
    ),
]


@pytest.mark.parametrize(("settings", "words"), WRONG)
def test_a_glob_that_changes_nothing_is_refused(tmp_path, settings, words):
    with pytest.raises(UsageError) as refused:
        engine(model(tmp_path, GRAPH), **settings)
    assert words in str(refused.value)


CONFIG = """
model = "gpt2_124m"
[train]
steps = 1
tokens_per_step = 64
[optimizer]
name = "plain"
lr = 0.01
[schedule]
name = "constant"
[[optimizer.groups]]
match = "*.bias"
"""
WRONG_TABLES = [
    ("lr = -1", "[optimizer.groups.1] lr: expected a number > 0, got -1"),
    ("rate = 1", "[optimizer.groups.1] rate: unknown key"),
    ("", "a group gives neither lr nor weight_decay"),
    ("weight_decay = 0.1", "optimizer plain has no option weight_decay"),
]


class Plain(Optimizer):
    name, groups = "plain", True

    def step(self, p, launch): ...


@pytest.mark.parametrize(("line", "words"), WRONG_TABLES)
def test_wrong_tables_are_refused_in_words(tmp_path, line, words):
    (tmp_path / "a.toml").write_text(CONFIG + line)
    with pytest.raises(UsageError) as refused:
        groups_of(load_config(tmp_path / "a.toml", device="cpu"), Plain())
    assert words in str(refused.value)


def test_a_rate_is_a_factor_and_an_optimizer_without_groups_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text(CONFIG + "lr = 0.002")
    config = load_config(tmp_path / "a.toml", device="cpu")
    assert groups_of(config, Plain())[0].lr_factor == pytest.approx(0.2)
    assert config.document["optimizer"]["groups"] == [{"match": ["*.bias"], "lr": 0.002}]
    with pytest.raises(UsageError, match="optimizer plain has one learning rate for all parameters"):
        groups_of(config, SimpleNamespace(name="plain", groups=False, options={}))
