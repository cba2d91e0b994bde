"""Training by hand with `core.load`: steps, updates, and objectives of one's own by the gradient of each loss term."""

from __future__ import annotations

import numpy as np
import pytest

import core
from core.errors import DataError, NumericsError, UsageError

DIMS = {"B": 4, "T": 5, "S": 8, "V": 11, "P": "pad(V, 64)", "C": 8, "H": 2, "L": 1}
RNG = np.random.default_rng(1)
TOKENS, TARGETS = RNG.integers(0, 11, (4, 5)), RNG.integers(-1, 11, (4, 5))


def tiny(**options):
    return core.load("gpt2_124m", **{"dims": DIMS, "precision": "f64", "optimizer": "adamw", **options})


def test_a_step_is_gradients_and_an_update_of_them(tmp_path):
    one, two = tiny(options={"clip": 0.1}), tiny(options={"clip": 0.1})
    for _ in range(2):
        record = one.step([{"tokens": TOKENS, "targets": TARGETS}], lr=1e-2)
        loss = two.loss(TOKENS, TARGETS)
        by_hand = two.update(two.gradients(TOKENS, TARGETS), lr=1e-2)
    assert record.loss == pytest.approx(loss, rel=1e-12) and record.step == by_hand.step == 2 and record.norm > 0.1
    assert all((one.params[name] == value).all() for name, value in two.params.items())


def test_micro_batches_of_a_step_are_one_batch():
    halves = [{"tokens": TOKENS[i : i + 2], "targets": TARGETS[i : i + 2]} for i in (0, 2)]
    one, two = tiny(), tiny()
    assert one.step(halves, lr=1e-2).loss == pytest.approx(two.step(TOKENS, TARGETS, lr=1e-2).loss, rel=1e-12)
    np.testing.assert_allclose(one.params["h.0.qkv.weight"], two.params["h.0.qkv.weight"], rtol=1e-8)


def test_a_policy_gradient_by_hand():
    """REINFORCE: texts are drawn from the model, 1 for each token that is a 7; the share of sevens grows."""
    model = tiny(options={"clip": 1.0, "weight_decay": 0.0})
    prompt = np.zeros((32, 1), int)
    share = []
    for step in range(30):
        texts = model.generate(prompt, max_new_tokens=5, seed=step)
        reward = (texts[:, 1:] == 7).mean(-1)
        share.append(reward.mean())
        advantage = np.repeat((reward - reward.mean())[:, None], 5, axis=1) / texts.shape[0]
        model.step(texts[:, :-1], texts[:, 1:], lr=3e-2, seeds={"loss": advantage})
    assert np.mean(share[:3]) < 0.3 and np.mean(share[-3:]) > 0.9, share


def test_seeds_are_the_gradient_of_an_objective_of_ones_own():
    """DPO's loss on two pairs, from log-probabilities: its gradient by seeds is its slope."""
    model, frozen = tiny(), tiny(seed=2)
    counts = TARGETS >= 0
    reference = -(frozen.losses(TOKENS, TARGETS) * counts).sum(-1)

    def objective():
        logp = -model.losses(TOKENS, TARGETS).sum(-1) - reference
        margin = 0.3 * (logp[::2] - logp[1::2])
        return np.log1p(np.exp(-margin)).mean(), margin

    slope = -0.3 / (1 + np.exp(objective()[1])) / 2  # d loss / d log-probability of the chosen one
    seeds = np.repeat(-np.stack([slope, -slope], -1).reshape(-1, 1), TOKENS.shape[1], axis=1)
    gradient = model.gradients(TOKENS, TARGETS, seeds={"loss": seeds})["h.0.fc.weight"]
    direction, at, found = RNG.standard_normal(gradient.shape), model.params["h.0.fc.weight"], []
    for epsilon in (1e-5, -2e-5):
        at += epsilon * direction
        found.append(objective()[0])
    assert (found[0] - found[1]) / 2e-5 == pytest.approx((gradient * direction).sum(), rel=1e-4)


INPUTS = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V", shift = "B T C" }
logits = "y"
loss = { loss = 1.0 }
[dims]
B = 2
T = 3
V = 5
C = 4
[graph]
wte = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
x = { op = "add", in = ["wte", "shift"] }
y = { op = "matmul", in = "x", features = "V", bias = false }
loss = { op = "cross_entropy", in = ["y", "targets"] }
"""


def test_a_batch_by_names_gives_any_input_that_the_model_declares(tmp_path):
    (tmp_path / "shifted.toml").write_text(INPUTS)
    model = core.load(tmp_path / "shifted.toml", optimizer="adamw", freeze=["wte.*"])
    batch = {"tokens": [[1, 2, 3]], "targets": [[2, 3, -1]], "shift": RNG.standard_normal((1, 3, 4))}
    before = model.loss(batch)
    assert set(model.gradients(batch)) == {"y.weight"}
    assert model.step(batch, lr=0.1).loss == pytest.approx(before, rel=1e-6) and model.loss(batch) < before
    assert model.logits({name: batch[name] for name in ("tokens", "shift")}).shape == (1, 3, 5)
    with pytest.raises(DataError, match='input "shift" is missing; got tokens, targets'):
        model.loss({name: batch[name] for name in ("tokens", "targets")})
    with pytest.raises(DataError, match='has no input "shft"; did you mean "shift"'):
        model.loss({"shft": batch["shift"]})


WRONG = [
    (lambda m: m.step(TOKENS, TARGETS, lr=-1), UsageError, "lr is -1; expected a number >= 0"),
    (lambda m: m.step(TOKENS, TARGETS, lr=0.1, seeds={"los": 1}), DataError, 'no term "los"; did you mean "loss"'),
    (lambda m: m.step(TOKENS, TARGETS, lr=0.1, seeds={"loss": [1.0]}), DataError, r"\(1,\); expected numbers \(4, 5\)"),
    (lambda m: m.step([{"tokens": TOKENS}], lr=0.1, seeds=[]), UsageError, "1 batches and 0 seeds"),
    (lambda m: m.update({"wte.weight": TOKENS}, lr=0.1), DataError, "gradients of gpt2_124m: missing h.0.*"),
    (lambda m: m.update({n: p * np.nan for n, p in m.params.items()}, lr=0.1), NumericsError, "nothing was updated"),
]


@pytest.mark.parametrize(("wrong", "kind", "words"), WRONG)
def test_what_cannot_be_a_step_is_refused(wrong, kind, words):
    with pytest.raises(kind, match=words):
        wrong(tiny())


def test_options_are_the_optimizers_own_and_a_step_needs_one():
    with pytest.raises(UsageError, match="loaded without an optimizer"):
        tiny(optimizer="").step(TOKENS, TARGETS, lr=0.1)
    with pytest.raises(UsageError, match='options.* weight_decai: unknown key; did you mean "weight_decay"'):
        tiny(options={"weight_decai": 0})
