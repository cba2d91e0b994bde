"""CPU variants against their references: forward, backward, in place, fused, and step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from op_nodes import (
    ATTENTION,
    OPS,
    REFERENCES,
    VARIANTS,
    Arrays,
    Node,
    attention_node,
    draw_inputs,
    near,
    rng,
    seeds_of,
    simple,
)

from core.op import Reference, Variant


def add_layernorm_by_parts(given: Arrays, params: Arrays, seeds: Arrays) -> tuple[Arrays, Arrays]:
    s = simple("add", "f64", {"a": given["x"], "b": given["r"]}, {}).forward()["y"]
    norm = simple("layernorm", "f64", {**given, "x": s}, params)
    outputs = {"y": norm.forward()["y"], "s": s}
    grads = norm.backward({"y": seeds["y"]})
    dx = grads.pop("x") + seeds["s"]
    return outputs, {**grads, "x": dx, "r": dx}


def head_loss_by_parts(given: Arrays, params: Arrays, seeds: Arrays) -> tuple[Arrays, Arrays]:
    head = simple("matmul", "f64", {**given, "bias": False}, params)
    loss = simple("cross_entropy", "f64", {**given, "logits": head.forward()["y"]}, {})
    outputs = loss.forward()
    return outputs, head.backward({"y": loss.backward(seeds)["logits"]})


BY_PARTS = {"add_layernorm": add_layernorm_by_parts, "head_loss": head_loss_by_parts}


def expected_of(node: Node, given: Arrays, seeds: Arrays) -> tuple[Arrays, Arrays]:
    """Outputs and gradients in f64, on the tensors as the node's precision rounds them."""
    rounded = {**given, **{k: v for k, v in node.inputs.items() if v is not None}}
    params = {k: v for k, v in node.params.items() if v is not None}
    if node.op.name in BY_PARTS:
        return BY_PARTS[node.op.name](rounded, params, seeds)
    exact = Node(node.op.name, "f64", params=params, **rounded)
    return exact.forward(), exact.backward(seeds)


def fast_node(variant: Variant, example: Arrays, precision: str = "f64") -> tuple[Node, Arrays]:
    given = draw_inputs(OPS[variant.op], example)
    return Node(variant.op, precision, **given), given


def runs(variant: Variant, example: Arrays) -> bool:
    node, _ = fast_node(variant, example)
    return variant.why_not(node.tensors({**node.inputs, **node.params})) is None


FAST = [
    pytest.param(variant, example, precision, id=f"{variant.op}.{variant.name}-{precision}-{i}")
    for variant in VARIANTS.values()
    if not isinstance(variant, Reference) and OPS[variant.op].gradient
    for i, example in enumerate([*OPS[variant.op].examples, *variant.examples])
    if runs(variant, example)
    for precision in ("f32", "f64")
]
EXACT = [p for p in FAST if p.values[2] == "f64"]
IN_PLACE = [p for p in EXACT if p.values[0].inplace]


@pytest.mark.parametrize(("variant", "example", "precision"), FAST)
def test_variant_computes_what_the_reference_says(variant: Variant, example: Arrays, precision: str) -> None:
    node, given = fast_node(variant, example, precision)
    seeds = seeds_of(node)
    outputs, expected = expected_of(node, given, seeds)
    got = node.forward(variant)
    for name in outputs:
        near(got[name], outputs[name], precision, name)
    grads = node.backward(seeds, variant)
    assert set(grads) == set(expected)
    for name, gradient in grads.items():
        near(gradient, expected[name], precision, "d" + name)
    again = node.backward(seeds, variant)
    assert all(np.array_equal(grads[n], again[n]) for n in grads), "the bits of two runs differ"


@pytest.mark.parametrize(("variant", "example", "precision"), EXACT)
def test_variant_adds_where_it_is_asked_to(variant: Variant, example: Arrays, precision: str) -> None:
    """Parameters' gradients always, inputs' where the variant says it can; each in turn absent."""
    node, given = fast_node(variant, example, precision)
    seeds = seeds_of(node)
    node.forward(variant)
    plain = node.backward(seeds, variant)
    adding = {n: rng(3).standard_normal(g.shape) for n, g in plain.items() if n in node.params or n in variant.can_add}
    added = node.backward(seeds, variant, into=adding)
    for name, start in adding.items():
        near(added[name] - start, plain[name], precision, "d" + name)
    for absent in plain:
        rest = node.backward(seeds, variant, absent=(absent,))
        assert all(np.array_equal(rest[n], plain[n]) for n in rest)


@pytest.mark.parametrize(("variant", "example", "precision"), IN_PLACE)
def test_variant_is_right_in_place_too(variant: Variant, example: Arrays, precision: str) -> None:
    node, given = fast_node(variant, example, precision)
    seeds = seeds_of(node)
    node.forward(variant)
    apart, shared = node.backward(seeds, variant), node.backward(seeds, variant, share=dict(variant.inplace))
    for name in apart:
        assert np.array_equal(apart[name], shared[name]), name


@pytest.mark.parametrize("op", ["gelu", "cross_entropy", "dropout"])
def test_reference_is_right_in_place_too(op: str) -> None:
    reference = REFERENCES[op]
    given = draw_inputs(OPS[op], OPS[op].examples[0])
    node = Node(op, **given, **({"key": np.array([1, 2, 3, 4], np.uint32)} if op == "dropout" else {}))
    node.forward()
    seeds = seeds_of(node)
    apart, shared = node.backward(seeds), node.backward(seeds, share=dict(reference.inplace))
    for name in apart:
        assert np.array_equal(apart[name], shared[name]), name


@pytest.mark.parametrize("missing", ["y", "s"])
def test_add_layernorm_does_without_either_gradient(missing: str) -> None:
    variant = VARIANTS["add_layernorm", "blocked"]
    node, given = fast_node(variant, {"x": (3, 33), "r": (3, 33)}, "f64")
    seeds = seeds_of(node)
    node.forward(variant)
    zeroed = node.backward({**seeds, missing: np.zeros((3, 33))}, variant)
    without = node.backward({k: v for k, v in seeds.items() if k != missing}, variant)
    for name in zeroed:
        np.testing.assert_allclose(without[name], zeroed[name], atol=1e-14)


@pytest.mark.parametrize("index", range(len(OPS["head_loss"].examples)))
def test_head_loss_in_one_go_is_forward_and_backward(index: int) -> None:
    variant = VARIANTS["head_loss", "chunked"]
    node, _ = fast_node(variant, OPS["head_loss"].examples[index], "f64")
    seeds = seeds_of(node)
    loss = node.forward(variant)["loss"].copy()
    apart = node.backward(seeds, variant)
    node.outputs["loss"].fill(math.nan)
    at_once = node.backward(seeds, variant, method="forward_backward")
    assert np.array_equal(node.outputs["loss"], loss)
    for name in apart:
        assert np.array_equal(apart[name], at_once[name]), name


DECODING = [
    pytest.param(variant, at, id=f"{variant.name}-{case}")
    for case, at in ATTENTION.items()
    if case != "documents" and at.get("causal", True)
    for variant in VARIANTS.values()
    if variant.op == "attention" and runs(variant, {"qkv": attention_node(at).inputs["qkv"].shape, **at})
]


@pytest.mark.parametrize(("variant", "at"), DECODING)
def test_decoding_step_by_step_gives_what_the_whole_gives(variant: Variant, at: Arrays) -> None:
    """T - 1 tokens and then one, rows that start at different places; what nothing wrote is NaN."""
    whole = attention_node(at)
    qkv, expected = whole.inputs["qkv"], whole.forward(variant)["y"]
    kv = whole.dims["kv_heads"] * whole.dims["D"]
    cache = {name: np.full((2, 12, kv), math.nan) for name in ("k", "v")}
    for begin, end in ((0, 8), (8, 9)):
        part = Node("attention", qkv=qkv[:, begin:end], start=np.array([begin, begin], np.int32), **cache, **at)
        got = part.forward(variant)["y"]
        np.testing.assert_allclose(got, expected[:, begin:end], atol=1e-12)
    # row 0 goes on at 4, as if its later tokens had never been, while row 1 goes on at 8
    mixed = np.stack([qkv[0, 4:5], qkv[1, 8:9]])
    part = Node("attention", qkv=mixed, start=np.array([4, 8], np.int32), **cache, **at)
    np.testing.assert_allclose(part.forward(variant)["y"][:, 0], [expected[0, 4], expected[1, 8]], atol=1e-12)


def test_position_counts_from_each_rows_start() -> None:
    x = rng().standard_normal((2, 3, 4))
    node = Node("position", x=x, length=10, start=np.array([5, 0], np.int32))
    y, weight = node.forward()["y"], node.params["weight"]
    np.testing.assert_array_equal(y, x + np.stack([weight[5:8], weight[0:3]]))
