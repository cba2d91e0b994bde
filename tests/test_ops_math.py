"""The built-in ops: references against PyTorch and against differences, cpu variants against references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from core.device.cpu import make_tensors, record
from core.dtypes import NUMPY, resolve
from core.op import Op, Pattern, Reference, Tensors, Variant

ops = pytest.importorskip("core.ops")
OPS: dict[str, Op] = {op.name: op for op in ops.core_ops()}
VARIANTS: dict[tuple[str, str], Variant] = {(v.op, v.name): v() for v in ops.core_variants()}
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
    """Random tensors for an example: integers within their bound, a third of the targets ignored."""
    r, given = rng(seed), {k: v for k, v in example.items() if k not in op.inputs}
    dims: Arrays = {**{k: v for k, v in op.attrs.items() if not isinstance(v, type)}, **given}
    for name, slot in op.inputs.items():
        if name not in example:
            continue
        if not slot.pattern.integer:
            given[name] = r.standard_normal(example[name])
            continue
        bound = {"rows": dims.get("rows"), "classes": dims.get("classes") or 0}.get(slot.pattern.bound or "", 3)
        if bound == 0:
            bound = dims.get("features") or example["logits"][-1]
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
    """Each input and parameter on its own, in a random direction, by central differences with Richardson's step."""
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

        expected = (4 * slope(5e-4) - slope(1e-3)) / 3
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-7, abs=1e-8), name


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
