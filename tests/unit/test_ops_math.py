"""The built-in ops: references against PyTorch and against differences, and what single ops promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_nodes import ATTENTION, OPS, VARIANTS, Arrays, Node, attention_node, close, draw_inputs, rng, seeds_of

from core.op import Op, Variant

DIFFERENTIABLE = [
    pytest.param(op, example, id=f"{op.name}-{i}")
    for op in OPS.values()
    if op.gradient and not op.replaces
    for i, example in enumerate(op.examples)
]


@pytest.mark.parametrize(("op", "example"), DIFFERENTIABLE)
def test_gradient_agrees_with_differences(op: Op, example: Arrays) -> None:
    """Each input and parameter on its own, in a random direction, by central differences with Richardson's step; small
    ones where rows are of small numbers."""
    given = draw_inputs(op, example)
    if "random" in op.uses:
        given["key"] = np.array([1, 2, 3, 4], np.uint32)
    node = Node(op.name, **given)
    outputs = node.forward()
    seeds = {k: rng(5).standard_normal(v.shape) for k, v in outputs.items()}
    grads = node.backward(seeds)
    assert grads

    def loss(store: Arrays, name: str, value: Any) -> float:
        kept, store[name] = store[name], value
        total = sum(float((node.forward()[k] * seeds[k]).sum()) for k in seeds)
        store[name] = kept
        return total

    for name, gradient in grads.items():
        store = node.inputs if name in node.inputs else node.params
        x = store[name]
        direction = rng(6).standard_normal(x.shape)

        def slope(h: float, x: Any = x, d: Any = direction, store: Arrays = store, name: str = name) -> float:
            return (loss(store, name, x + h * d) - loss(store, name, x - h * d)) / (2 * h)

        near = [pytest.approx((4 * slope(h / 2) - slope(h)) / 3, rel=1e-7, abs=1e-8) for h in (1e-3, 2e-5)]
        assert float((gradient * direction).sum()) in near, name


def compare(node: Node, peer: Any, tolerance: float = 1e-12) -> None:
    """Outputs and all gradients of a node against `peer(**tensors)`, which returns the outputs in order."""
    torch = pytest.importorskip("torch")
    outputs = node.forward()
    seeds = {k: rng(5).standard_normal(v.shape) for k, v in outputs.items()}
    grads = node.backward(seeds)
    leaves = {
        k: torch.tensor(v, requires_grad=v.dtype == np.float64)
        for k, v in {**node.inputs, **node.params}.items()
        if v is not None
    }
    theirs = peer(torch, **leaves)
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    torch.autograd.backward(theirs, [torch.tensor(seeds[k]) for k in outputs])
    for ours, their in zip(outputs.values(), theirs, strict=True):
        close(ours, their, tolerance)
    for name, gradient in grads.items():
        close(gradient, leaves[name].grad, tolerance)


def test_embedding_is_torchs() -> None:
    ids = rng().integers(0, 11, (3, 7))
    compare(Node("embedding", ids=ids, rows=11, cols=5), lambda T, ids, weight: weight[ids.long()])


def test_position_is_torchs() -> None:
    compare(Node("position", x=rng().standard_normal((2, 5, 3)), length=8), lambda T, x, weight: x + weight[:5])


@pytest.mark.parametrize("bias", [True, False])
def test_layernorm_is_torchs(bias: bool) -> None:
    node = Node("layernorm", x=rng().standard_normal((4, 3, 17)), bias=bias, eps=1e-3)
    compare(
        node,
        lambda T, x, weight, bias=None: T.nn.functional.layer_norm(x, (17,), weight, bias, 1e-3),
    )


@pytest.mark.parametrize("bias", [True, False])
def test_matmul_is_torchs(bias: bool) -> None:
    node = Node("matmul", x=rng().standard_normal((2, 3, 7)), features=5, bias=bias)
    compare(node, lambda T, x, weight, bias=None: T.nn.functional.linear(x, weight, bias))


@pytest.mark.parametrize("approx", ["tanh", "erf"])
def test_gelu_is_torchs(approx: str) -> None:
    x = np.concatenate([rng().standard_normal(300) * 3, [0.0, -0.0, 12.0, -12.0, 40.0, -40.0]])
    peer = {"tanh": "tanh", "erf": "none"}[approx]
    compare(Node("gelu", x=x, approx=approx), lambda T, x: T.nn.functional.gelu(x, approximate=peer))


def test_add_is_torchs() -> None:
    compare(Node("add", a=rng(1).standard_normal((2, 3)), b=rng(2).standard_normal((2, 3))), lambda T, a, b: a + b)


def test_cross_entropy_is_torchs_without_padding_and_ignored_targets() -> None:
    logits, targets = rng().standard_normal((3, 7, 16)) * 4, rng(1).integers(-1, 13, (3, 7))

    def peer(T: Any, logits: Any, targets: Any) -> Any:
        flat = logits.reshape(-1, 16)[:, :13], targets.reshape(-1).long()
        return T.nn.functional.cross_entropy(*flat, ignore_index=-1, reduction="none").reshape(3, 7)

    compare(Node("cross_entropy", logits=logits, targets=targets, classes=13), peer)


def torch_attention(T: Any, qkv: Any, documents: Any, at: Arrays, D: int) -> Any:
    """Written out over the heads one by one, with a mask from the definition."""
    B, length, _ = qkv.shape
    heads, kv = at["heads"], at.get("kv_heads") or at["heads"]
    q, k, v = T.split(qkv.reshape(B, length, heads + 2 * kv, D), [heads, kv, kv], dim=2)
    i, j = T.arange(length)[:, None], T.arange(length)[None]
    seen = (j <= i) if at.get("causal", True) else T.ones(length, length, dtype=T.bool)
    if at.get("window"):
        seen = seen & (j > i - at["window"])
    seen = seen.expand(B, length, length)
    if documents is not None:
        seen = seen & (documents[:, :, None] == documents[:, None, :])
    out = []
    for h in range(heads):
        s = T.einsum("btd,bsd->bts", q[:, :, h], k[:, :, h * kv // heads]) * (at.get("scale") or D**-0.5)
        s = at["softcap"] * T.tanh(s / at["softcap"]) if at.get("softcap") else s
        out.append(T.softmax(s.masked_fill(~seen, -math.inf), -1) @ v[:, :, h * kv // heads])
    return T.cat(out, -1)


@pytest.mark.parametrize("case", ATTENTION)
def test_attention_is_torchs(case: str) -> None:
    at = ATTENTION[case]
    compare(attention_node(at), lambda T, qkv, documents=None: torch_attention(T, qkv, documents, at, 5))


def test_positions_beyond_t_get_a_gradient_of_zero() -> None:
    node = Node("position", x=rng().standard_normal((2, 3, 4)), length=5)
    node.forward()
    assert not node.backward({"y": np.ones((2, 3, 4))})["weight"][3:].any()


@pytest.mark.parametrize("variant", [v for v in VARIANTS.values() if v.op == "cross_entropy"], ids=repr)
def test_padding_columns_and_ignored_targets_get_exactly_nothing(variant: Variant) -> None:
    targets = np.array([3, -1, 0, -100])
    node = Node("cross_entropy", logits=rng().standard_normal((4, 8)) * 1e3, targets=targets, classes=5)
    node.inputs["logits"][:, 5:] = math.nan  # padding is not looked at
    loss = node.forward(variant)["loss"]
    assert not loss[targets < 0].any() and np.isfinite(loss).all()
    gradient = node.backward({"loss": np.ones(4)}, variant)["logits"]
    assert not gradient[:, 5:].any() and not gradient[targets < 0].any()
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-12)


def test_head_loss_keeps_the_gradient_of_padding_rows_at_zero() -> None:
    variant = VARIANTS["head_loss", "chunked"]
    given = draw_inputs(OPS["head_loss"], OPS["head_loss"].examples[0])
    node = Node("head_loss", "f32", **given)
    node.forward(variant)
    assert not node.backward({"loss": np.ones((2, 7))}, variant)["weight"][29:].any()


def test_a_query_that_may_see_nothing_gives_zero() -> None:
    """Alone in the mathematics: a mask that hides a whole row gives p = 0 and lse = 0, not NaN."""
    from core.ops.attention import softmax

    p, lse = softmax(np.ones((2, 3)), np.array([[True, False, True], [False, False, False]]))
    np.testing.assert_array_equal(p, [[0.5, 0, 0.5], [0, 0, 0]])
    assert lse[1] == 0


def test_gelu_is_flat_and_linear_far_out() -> None:
    for precision in ("f32", "f64"):
        for variant in (v for v in VARIANTS.values() if v.op == "gelu"):
            for approx in ("tanh", "erf"):
                node = Node("gelu", precision, x=np.array([-1e4, -50.0, 0.0, 50.0, 1e4]), approx=approx)
                if variant.why_not(node.tensors(node.inputs)):
                    continue
                with np.errstate(all="raise", under="ignore"):
                    y = node.forward(variant)["y"]
                    dx = node.backward({"y": np.ones(5)}, variant)["x"]
                np.testing.assert_allclose(y, [0, 0, 0, 50, 1e4], atol=1e-30)
                np.testing.assert_allclose(dx, [0, 0, 0.5, 1, 1], atol=1e-30)


def test_references_stay_in_their_precision() -> None:
    """A reference that computes f32 in f64 would hide what f32 costs; its outputs would be exact to the last bit."""
    for op in OPS.values():
        if not op.gradient or op.replaces:
            continue
        given = draw_inputs(op, op.examples[0])
        node = Node(op.name, "f32", **given, **({"key": np.zeros(4, np.uint32)} if "random" in op.uses else {}))
        t = node.tensors({**node.inputs, **node.params})
        assert all(v.dtype != np.float64 for v in (*node.forward().values(), *node.saved.values())), t
        assert all(g.dtype == np.float32 for g in node.backward(seeds_of(node)).values())


@pytest.mark.parametrize(
    ("op", "given", "message"),
    [
        ("position", {"x": np.zeros((1, 9, 2)), "length": 8}, "only 8 positions"),
        ("attention", {"qkv": np.zeros((1, 2, 13)), "heads": 2}, "no multiple of heads"),
        ("attention", {"qkv": np.zeros((1, 2, 14)), "heads": 3, "kv_heads": 2}, "whole groups"),
        ("attention", {"qkv": np.zeros((1, 2, 12)), "heads": 2, "window": -1}, "negative"),
        ("cross_entropy", {"logits": np.zeros((2, 4)), "targets": np.zeros(2), "classes": 5}, "4 columns"),
        ("dropout", {"x": np.zeros((2, 4)), "p": 1.0}, "a probability"),
        ("head_loss", {"x": np.zeros((2, 4)), "targets": np.zeros(2), "features": 3, "chunk": -1}, "chunk"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_words(op: str, given: Arrays, message: str) -> None:
    from core.errors import BuildError

    with pytest.raises(BuildError, match=message):
        Node(op, **given)
