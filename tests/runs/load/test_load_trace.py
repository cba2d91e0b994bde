"""A traced step of `core.load`: every node and tensor by name, no bit changed, and the chain rule by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from loaded_model import TARGETS, TOKENS, softmax

import core
from core.errors import UsageError

# --- trace -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def events(model):
    """(kind, node, variant, copies of its tensors) of a traced step."""
    return [
        (e.kind, e.node, e.variant, {k: None if v is None else v.copy() for k, v in e.tensors.items()})
        for e in model.trace(TOKENS, TARGETS)
    ]


def at(events, kind, node):
    (found,) = [tensors for k, n, _, tensors in events if (k, n) == (kind, node)]
    return found


def test_every_node_comes_forward_and_then_backward_in_reverse(model, events):
    nodes = [n.name for n in model.graph.nodes]
    walked = [(kind, node) for kind, node, _, _ in events if node]
    assert walked == [("forward", n) for n in nodes] + [("backward", n) for n in reversed(nodes)]


def test_every_tensor_of_a_node_is_there_by_its_schemas_name(model, events):
    for node in model.graph.nodes:
        forward, backward = at(events, "forward", node.name), at(events, "backward", node.name)
        assert {*node.inputs, *node.outputs, *node.params} <= set(forward)
        for role, name in node.params.items():
            np.testing.assert_array_equal(forward[role], model.params[name])
            assert backward["d" + role].shape == forward[role].shape
        for role in (*node.inputs, *node.outputs):
            value = model.graph.values[{**node.inputs, **node.outputs}[role]]
            assert forward[role].shape == core.expr.trim(value.shape)
            if value.dtype != "i32" and role in node.inputs:
                assert backward["d" + role].shape == forward[role].shape


def test_the_gradients_that_a_trace_shows_are_those_of_gradients(model, events):
    last = {}
    for kind, node, _, tensors in events:
        if kind == "backward":
            for role, name in model.graph.node(node).params.items():
                last[name] = tensors["d" + role]
    expected = model.gradients(TOKENS, TARGETS)
    assert set(last) == set(expected)
    for name, gradient in expected.items():
        np.testing.assert_array_equal(last[name], gradient)


def test_tracing_changes_no_bit(model):
    params = {n: p.copy() for n, p in model.params.items()}
    before = model.gradients(TOKENS, TARGETS)
    for _ in model.trace(TOKENS, TARGETS):
        pass
    half = model.trace(TOKENS, TARGETS)  # one that is given up half way
    for _ in range(20):
        next(half)
    after = model.gradients(TOKENS, TARGETS)
    for name, gradient in before.items():
        np.testing.assert_array_equal(after[name], gradient)
        np.testing.assert_array_equal(model.params[name], params[name])


def test_a_trace_ends_when_the_model_computes_something_else(model):
    events = model.trace(TOKENS, TARGETS)
    next(events)
    model.loss(TOKENS, TARGETS)
    with pytest.raises(UsageError, match="used during its trace"):
        next(events)


def test_the_chain_rule_at_a_layernorm_holds_by_hand(events):
    forward, t = at(events, "forward", "ln_f"), at(events, "backward", "ln_f")
    n = (forward["x"] - forward["x"].mean(-1, keepdims=True)) / np.sqrt(forward["x"].var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(forward["y"], n * forward["weight"] + forward["bias"], rtol=1e-9)
    C = n.shape[-1]
    jacobian = np.eye(C) - 1 / C - n[..., :, None] * n[..., None, :] / C  # of n by x, times rstd
    dx = forward["rstd"][..., None] * np.einsum("btji,btj->bti", jacobian, t["dy"] * forward["weight"])
    np.testing.assert_allclose(t["dx"], dx, rtol=1e-7, atol=1e-14)
    np.testing.assert_allclose(t["dweight"], (t["dy"] * n).sum((0, 1)), rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(t["dbias"], t["dy"].sum((0, 1)), rtol=1e-10, atol=1e-14)


def test_the_chain_rule_at_the_loss_and_the_head_holds_by_hand(model, events):
    t, count = at(events, "backward", "loss"), (TARGETS >= 0).sum()
    one_hot = np.eye(50)[np.maximum(TARGETS, 0)]
    expected = np.where(TARGETS[..., None] >= 0, softmax(t["logits"]) - one_hot, 0) / count
    np.testing.assert_allclose(t["dlogits"], expected, rtol=1e-9, atol=1e-16)
    head = at(events, "backward", "logits")
    np.testing.assert_array_equal(head["dy"], t["dlogits"])
    np.testing.assert_allclose(head["dx"], head["dy"] @ model.params["wte.weight"], rtol=1e-9, atol=1e-16)
    of_head = np.einsum("btv,btc->vc", head["dy"], head["x"])
    np.testing.assert_allclose(head["dweight"], of_head, rtol=1e-9, atol=1e-16)
    wte = at(events, "backward", "wte")  # the embedding adds to what the head wrote
    added = of_head.copy()
    np.add.at(added, wte["ids"].ravel(), wte["dy"].reshape(-1, 24))
    np.testing.assert_allclose(wte["dweight"], added, rtol=1e-9, atol=1e-16)


def test_the_chain_rule_at_attention_holds_by_hand(events):
    t = at(events, "backward", "h.0.attn")
    H, D = 4, 6
    q, k, v = (np.moveaxis(part.reshape(2, 9, H, D), 2, 1) for part in np.split(t["qkv"], 3, axis=-1))
    dy = np.moveaxis(t["dy"].reshape(2, 9, H, D), 2, 1)
    s = np.where(np.tri(9, dtype=bool), q @ np.swapaxes(k, -1, -2) / math.sqrt(D), -np.inf)
    p = softmax(s)
    np.testing.assert_allclose(t["lse"], np.log(np.exp(s).sum(-1)), rtol=1e-9)
    dp = dy @ np.swapaxes(v, -1, -2)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / math.sqrt(D)
    parts = (ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ dy)
    expected = np.concatenate([np.moveaxis(part, 1, 2).reshape(2, 9, H * D) for part in parts], -1)
    np.testing.assert_allclose(t["dqkv"], expected, rtol=1e-7, atol=1e-14)
