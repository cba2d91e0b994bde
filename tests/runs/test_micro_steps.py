"""Micro-steps: their losses and random keys are those of one large step of the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from small_graph import HEAD, batch, engine, halves, model, with_ops

from core import Op, Reference
from core.testing import check_variant

TERMS = """x = { op = "matmul", in = "wte", features = "C" }
lens = { op = "matmul", in = "wte", features = "V", bias = false }
early = { op = "cross_entropy", in = ["lens", "targets"] }
gate = { op = "matmul", in = "wte", features = 4 }
route = { op = "route", in = "gate", k = 2 }
even = { op = "balance", in = ["gate", "route.expert"] }
"""


@pytest.mark.parametrize("freeze", [(), ("wte*", "lens*"), ("wte*", "gate*"), ("x*", "y*"), ("[!x]*",)])
@pytest.mark.parametrize("fusion", [{}, {"head_loss": False}])
def test_the_objective_is_all_weighted_terms_whatever_trains(tmp_path, freeze, fusion):
    top = 'logits = "y"\n[loss]\nloss = 1.0\nearly = 0.5\neven = 0.25'
    built = engine(model(tmp_path, TERMS + HEAD, top=top), freeze=freeze, fusion=fusion)
    whole = batch()
    whole["targets"][0, :2] = -1
    total, count = built.evaluate(whole)
    assert built.gradients(whole)[0] == pytest.approx(total / count, rel=1e-13)
    trained = engine(model(tmp_path, TERMS + HEAD, top=top), fusion=fusion)
    free, kept = trained.gradients(whole)[1], built.gradients(whole)[1]
    for name, gradient in kept.items():
        np.testing.assert_allclose(gradient, free[name], rtol=1e-12, atol=1e-16, err_msg=name)


EXPERTS = """gate = { op = "matmul", in = "wte", features = 4, bias = false }
route = { op = "route", in = "gate", k = 2 }
fc = { op = "expert_matmul", in = ["wte", "route.expert"], experts = 4, features = "C" }
drop = { op = "dropout", in = "fc", p = 0.5 }
x = { op = "combine", in = ["drop", "route"] }
"""


class FirstReference(Reference):
    op = "first_token"

    def forward(self, t):
        t.y[...] = t.x[:, 0]

    def backward(self, t):
        if t.dx is not None:
            whole = np.zeros(t.x_shape if hasattr(t, "x_shape") else (*t.dy.shape[:1], t.T, t.C))
            whole[:, 0] = t.dy
            t.add("dx", whole)


class EveryReference(Reference):
    op = "every_token"

    def forward(self, t):
        t.y[...] = t.x + t.r[:, None]

    def backward(self, t):
        t.add("dx", t.dy)
        t.add("dr", t.dy.sum(1))


FIRST = (Op("first_token", inputs={"x": "B T C"}, outputs={"y": "B C"}), FirstReference)
EVERY = (Op("every_token", inputs={"x": "B T C", "r": "B C"}, outputs={"y": "B T C"}), EveryReference)
FEWER = """first = { op = "first_token", in = "wte" }
drop = { op = "dropout", in = "first", p = 0.5 }
x = { op = "every_token", in = ["wte", "drop"] }
"""


@pytest.mark.parametrize("graph", [EXPERTS, FEWER, 'x = { op = "dropout", in = "wte", p = 0.5 }\n'])
@pytest.mark.parametrize("recompute", [(), ("dropout",)])
def test_masks_are_the_same_in_1_2_and_4_micro_steps_of_the_same_rows(tmp_path, graph, recompute):
    path = model(tmp_path, graph + HEAD)
    whole = batch()
    losses = []
    for count in (1, 2, 4):
        built = engine(path, with_ops(FIRST, EVERY), recompute=recompute)
        losses.append([built.step(halves(whole, count), 0.01).loss for _ in range(2)])
        resumed = engine(path, with_ops(FIRST, EVERY), recompute=recompute)
        resumed.load_parameters({n: v.copy() for n, v in built.parameters().items()})
        resumed.load_optimizer_state({s: dict(v) for s, v in built.optimizer_state().items()})
        resumed.set_step(2)
        assert resumed.step(halves(whole, count), 0.01).loss == built.step(halves(whole, count), 0.01).loss
    np.testing.assert_allclose(losses, [losses[0]] * 3, rtol=1e-13)


def twice(pattern, several):
    """An op of two values for each, each dropped by itself. several: rows of numbers are those of y, not of x."""

    class TwiceReference(Reference):
        op = "dropped_twice"
        saved = {"kept": pattern.replace("C", "2 C")}

        def forward(self, t):
            from core.ops.philox import words

            shape = t.y.shape if several else (*t.y.shape[:-2], 2 * t.y.shape[-1])
            t.kept[...] = 1 if t.key is None else 2 * (words(t.key, shape) >= 2**31).reshape(t.y.shape)
            t.y[...] = t.x[..., None, :] * t.kept

        def backward(self, t):
            t.add("dx", (t.dy * t.kept).sum(-2))

    examples = [{"x": (3, 5, 4)}, {"x": (1, 1, 1)}]
    inputs, outputs = {"x": pattern}, {"y": pattern.replace("C", "2 C")}
    return Op("dropped_twice", inputs=inputs, outputs=outputs, uses=("random",), examples=examples), TwiceReference


@pytest.mark.parametrize("pattern", ["B T C", "... C"])
@pytest.mark.parametrize("several", [False, True])
def test_the_check_refuses_an_op_that_draws_more_rows_than_keys_count(tmp_path, pattern, several):
    """Keys count the rows of the first input. The masks of an op that draws two rows for each of them repeat."""
    registry = with_ops(twice(pattern, several))
    report = check_variant(registry.op("dropped_twice"), registry.reference("dropped_twice"), registry)
    assert report.failed_checks() == (["random"] if several else [])
    graph = 'd = { op = "dropped_twice", in = "wte" }\nroute = { op = "route", in = "wte", k = 2 }\n'
    path = model(tmp_path, graph + 'x = { op = "combine", in = ["d", "route"] }\n' + HEAD)
    whole = batch()
    losses = [engine(path, registry).step(halves(whole, count), 0.0).loss for count in (1, 2, 4)]
    assert (np.ptp(losses) < 1e-13) is not several


def test_micro_steps_of_different_rows_count_their_own(tmp_path):
    path, whole = model(tmp_path, EXPERTS + HEAD), batch()
    parts = [{n: v[:1] for n, v in whole.items()}, {n: v[1:] for n, v in whole.items()}]
    assert engine(path).step(parts, 0.0).loss == pytest.approx(engine(path).step([whole], 0.0).loss, rel=1e-13)
