"""DPO as an adapter of a model: its loss and gradients by hand, its training, and the frozen reference of a run."""

from __future__ import annotations

import math

import lora_runs
import numpy as np
import pytest
import small_run

import core
from core import cli
from core.errors import BuildError
from core.train.run import read_lines

INPUTS = '[inputs]\nrejected_tokens = "B T : i32 < V"\nrejected_targets = "B T : i32 < V"\n'
DPO = f'extends = "base.toml"\n{INPUTS}[adapt.dpo]\nbeta = 0.5\n'
RNG = np.random.default_rng(1)
PROMPT = np.arange(16) < 5  # of which no target counts
CHOSEN, REJECTED = (
    (RNG.integers(0, 257, (4, 16)), np.where(PROMPT, -1, RNG.integers(0, 257, (4, 16)))) for _ in range(2)
)
BATCH = dict(zip(("tokens", "targets", "rejected_tokens", "rejected_targets"), (*CHOSEN, *REJECTED), strict=True))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lora_runs.write(tmp_path)
    (tmp_path / "dpo.toml").write_text(DPO)
    return tmp_path


def moved(model, seed):
    for name, values in model.params.items():
        values += 0.05 * np.random.default_rng([seed, len(name)]).standard_normal(values.shape)
    return model


def test_loss_and_gradients_are_the_formulas_and_training_raises_the_margin(here):
    policy, reference = (moved(core.load("base.toml", precision="f64"), seed) for seed in (1, 2))
    model = core.load("dpo.toml", precision="f64", optimizer="adamw", freeze=["ref.*"])
    for name, values in policy.params.items():
        model.params[name][...], model.params[f"ref.{name}"][...] = values, reference.params[name]

    def margins():
        chosen, rejected = (reference.losses(*a) - policy.losses(*a) for a in (CHOSEN, REJECTED))
        return 0.5 * (chosen - rejected).sum(-1)

    assert model.loss(BATCH) == pytest.approx(np.log1p(np.exp(-margins())).mean(), rel=1e-12)
    each = np.repeat(0.5 / 4 / (1 + np.exp(margins()))[:, None], 16, axis=1)  # by each token's loss
    both = [policy.gradients(*a, seeds={"loss": s * each}) for a, s in ((CHOSEN, 1), (REJECTED, -1))]
    gradients = model.gradients(BATCH)
    assert gradients.keys() == policy.params.keys(), "those of the reference are frozen"
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, both[0][name] + both[1][name], atol=1e-12, err_msg=name)
    before = {name: values.copy() for name, values in model.params.items() if name.startswith("ref.")}
    losses = [model.step(BATCH, lr=1e-2).loss for _ in range(8)]
    assert losses[-1] < 0.5 * losses[0] and all((model.params[n] == v).all() for n, v in before.items())


def test_a_run_has_a_frozen_reference_by_prefix(here, capsys):
    assert lora_runs.train("base_run.toml", "--out", "base") == 0
    for name, array in BATCH.items():
        np.save(f"{name}.npy", array.astype(np.int32))
    data = {"data": {"train": {name: f"{name}.npy" for name in BATCH}}}
    tables = {"model": "dpo.toml", "dims": None, "weights": "base", "train": lora_runs.TRAIN, **data}
    config = small_run.unwatched(**tables) + '[[reference]]\nweights = "base"\nprefix = "ref."\n'
    (here / "dpo_run.toml").write_text(config)
    assert lora_runs.train("dpo_run.toml", "--out", "dpo") == 0
    assert "frozen weights ref.*: base" in capsys.readouterr().out
    losses = [line["loss"] for line in read_lines(here / "dpo/metrics.jsonl")]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6), "the policy begins as the reference"
    base, trained = core.load("base"), core.load("dpo")
    assert all((trained.params[f"ref.{name}"] == values).all() for name, values in base.params.items())
    assert not (trained.params["wte.weight"] == base.params["wte.weight"]).all()
    assert cli.run(["dpo", "save", "dpo", "--out", "policy"]) == 0
    assert (core.load("policy").params["wte.weight"] == trained.params["wte.weight"]).all()
    for old, new, code, words in (
        ('prefix = "ref."', 'prefix = "rf."', 2, 'the prefix "rf." is that of no parameter of dpo'),
        ('weights = "base"\nprefix', 'weights = "dpo"\nprefix', 7, 'it is not a model under "ref."'),
    ):
        (here / "wrong.toml").write_text(config.replace(old, new))
        assert lora_runs.train("wrong.toml", "--out", "x") == code
        assert words in capsys.readouterr().err


def test_a_model_without_rejected_answers_is_refused_with_the_lines_to_add(here):
    (here / "dpo.toml").write_text(DPO.replace(INPUTS, ""))
    with pytest.raises(BuildError, match='rejected_targets = "B T : i32 < V"'):
        core.load("dpo.toml")
