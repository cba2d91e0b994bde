"""The built-in ops: references against PyTorch and against differences, cpu variants against references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from core.device.cpu import record
from core.dtypes import NUMPY, resolve
from core.op import Op, Pattern, Reference, Tensors, Variant, make_tensors

ops = pytest.importorskip("core.ops")
OPS: dict[str, Op] = {op.name: op for op in ops.core_ops()}
CPU = [v for v in ops.core_variants() if v.device == "cpu"]
VARIANTS: dict[tuple[str, str], Variant] = {(v.op, v.name): v() for v in CPU}
REFERENCES = {v.op: v for v in VARIANTS.values() if isinstance(v, Reference)}
Arrays = dict[str, Any]


class Node:
    """One op on given tensors: runs a variant's launchers as a plan would, outputs starting as NaN."""

    def __init__(self, op: str, precision: str = "f64", params: Arrays | None = None, **given: Any) -> None:
        self.op, self.precision = OPS[op], precision
        attrs = {k: v for k, v in given.items() if k in self.op.attrs}
        extra = {k: given.get(k) for k in ("start", "key", "k", "v") if k in given or k in ("start", "key")}
        self.inputs = {k: self.cast(given.get(k), slot.pattern) for k, slot in self.op.inputs.items()}
        settled = self.op.settle_attrs(attrs, {}, op)
        self.dims = self.op.solve({k: v.shape for k, v in self.inputs.items() if v is not None}, settled, op)
        rng = np.random.default_rng(7)
        self.params: Arrays = {}
        for name, declared in self.op.params.items():
            present = not declared.optional or settled[name]
            drawn = rng.standard_normal(self.op.param_patterns[name].shape(self.dims))
            value = (params or {}).get(name, drawn)
            self.params[name] = self.cast(value, self.op.param_patterns[name]) if present else None
        self.extra = extra
        self.outputs: Arrays = {}
        self.saved: Arrays = {}

    def cast(self, value: Any, pattern: Pattern) -> Any:
        return None if value is None else np.ascontiguousarray(value, NUMPY[resolve(pattern.dtype, self.precision)])

    def empty(self, pattern: Pattern, fill: float = math.nan) -> Any:
        return np.full(pattern.shape(self.dims), fill, NUMPY[resolve(pattern.dtype, self.precision)])

    def tensors(self, values: Arrays, **flags: Any) -> Tensors:
        return make_tensors(self.dims, {**values, **self.extra}, **flags)

    def execute(self, variant: Variant, method: str, t: Tensors) -> None:
        for command in record(variant, method, t):
            command()

    def forward(self, variant: Variant | None = None) -> Arrays:
        variant = variant or REFERENCES[self.op.name]
        self.outputs = {k: self.empty(slot.pattern) for k, slot in self.op.outputs.items()}
        self.saved = {k: self.empty(Pattern.parse(p)) for k, p in variant.saved.items()}
        t = self.tensors({**self.inputs, **self.params, **self.outputs, **self.saved})
        self.execute(variant, "forward", t)
        return self.outputs

    def backward(
        self,
        grads: Arrays,
        variant: Variant | None = None,
        absent: tuple[str, ...] = (),
        into: Arrays | None = None,
        share: dict[str, str] | None = None,
        method: str = "backward",
    ) -> Arrays:
        """Gradients by name. `absent` are asked for by nobody, those of `into` are added to, `share` are in place."""
        variant = variant or REFERENCES[self.op.name]
        into = into or {}
        values = {**self.inputs, **self.params, **self.outputs}
        seen = {k: values[k] for k in (values if method == "forward_backward" else variant.reads)}
        seen |= self.saved
        seen |= {"d" + k: self.cast(grads.get(k), slot.pattern) for k, slot in self.op.outputs.items()}
        flags, result = {}, {}
        acc = NUMPY[resolve("acc", self.precision)]
        for name, value in (*self.inputs.items(), *self.params.items()):
            integer = name in self.op.inputs and self.op.inputs[name].pattern.integer
            wanted = value is not None and not integer and name not in absent
            if not wanted:
                seen["d" + name] = None
                continue
            dtype = value.dtype if name in self.op.inputs else acc
            start = into.get(name, 0.0 if name in variant.partial else math.nan)
            result[name] = np.array(np.broadcast_to(start, value.shape), dtype)
            if share and "d" + name in share:
                result[name] = seen[share["d" + name]] = seen[share["d" + name]].copy()
            seen["d" + name] = result[name]
            flags["add_d" + name] = name in into
        for name in (*self.inputs, *self.params):
            flags.setdefault("add_d" + name, False)
        self.execute(variant, method, self.tensors(seen, **flags))
        return result


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def draw_inputs(op: Op, example: Arrays, seed: int = 0) -> Arrays:
    """Tensors for an example: contents as they are given, else drawn: integers within their bound, a third of the
    targets ignored."""
    r, given = rng(seed), {k: v for k, v in example.items() if k not in op.inputs}
    dims: Arrays = {**{k: v for k, v in op.attrs.items() if not isinstance(v, type)}, **given}
    for name, slot in op.inputs.items():
        if name not in example:
            continue
        if isinstance(example[name], np.ndarray):
            given[name] = example[name]
            continue
        if not slot.pattern.integer:
            given[name] = r.standard_normal(example[name])
            continue
        bound = {"rows": dims.get("rows"), "classes": dims.get("classes") or 0}.get(slot.pattern.bound or "", 3)
        if bound == 0:
            bound = dims.get("features") or given["logits"].shape[-1]
        given[name] = r.integers(0, bound, example[name])
        if name == "targets":
            given[name][r.random(example[name]) < 0.3] = -1
    return given


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


# --- against PyTorch -------------------------------------------------------------------------------------------


def close(ours: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    theirs = theirs.detach().numpy()
    assert np.linalg.norm(ours - theirs) <= tolerance * (np.linalg.norm(theirs) + 1e-300)


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


ATTENTION: dict[str, Arrays] = {
    "causal": {"heads": 3},
    "full": {"heads": 3, "causal": False},
    "grouped": {"heads": 6, "kv_heads": 2},
    "multi-query": {"heads": 4, "kv_heads": 1},
    "window": {"heads": 3, "window": 3},
    "full with window": {"heads": 2, "window": 4, "causal": False},
    "scale": {"heads": 2, "scale": 0.7},
    "softcap": {"heads": 4, "kv_heads": 2, "softcap": 0.8, "scale": 1.3},
    "documents": {"heads": 2, "documents": [[5, 5, 5, -2, -2, 0, 0, 0, 9], [1, 1, 1, 1, 2, 2, 1, 1, 1]]},
}


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


def attention_node(at: Arrays, precision: str = "f64", D: int = 5) -> Node:
    width = at["heads"] + 2 * (at.get("kv_heads") or at["heads"])
    return Node("attention", precision, qkv=rng().standard_normal((2, 9, width * D)), **at)


@pytest.mark.parametrize("case", ATTENTION)
def test_attention_is_torchs(case: str) -> None:
    at = ATTENTION[case]
    compare(attention_node(at), lambda T, qkv, documents=None: torch_attention(T, qkv, documents, at, 5))


# --- cpu variants against references ---------------------------------------------------------------------------

BOUND = {"f32": 1e-5, "f64": 1e-13}
FUSED_SEED = 11


def near(got: Any, expected: Any, precision: str, what: str) -> None:
    scale = np.linalg.norm(expected.astype(np.float64)) + 1e-30
    assert np.isfinite(got).all(), f"{what} was not written whole"
    assert np.linalg.norm(got.astype(np.float64) - expected) <= BOUND[precision] * scale, what


def simple(name: str, precision: str, given: Arrays, params: Arrays) -> Node:
    return Node(
        name, precision, params=params, **{k: v for k, v in given.items() if k in (*OPS[name].inputs, *OPS[name].attrs)}
    )


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


def seeds_of(node: Node) -> Arrays:
    shapes = {k: slot.pattern.shape(node.dims) for k, slot in node.op.outputs.items()}
    return {k: node.cast(rng(FUSED_SEED).standard_normal(s), node.op.outputs[k].pattern) for k, s in shapes.items()}


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


# --- decoding --------------------------------------------------------------------------------------------------

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


# --- promises of single ops ------------------------------------------------------------------------------------


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
