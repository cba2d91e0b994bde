"""One node of an op with its tensors: drawn, run forward and backward by any CPU variant."""

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
CPU = [v for v in ops.core_variants("cpu") if v.device == "cpu"]
VARIANTS: dict[tuple[str, str], Variant] = {(v.op, v.name): v() for v in CPU}
REFERENCES = {v.op: v for v in VARIANTS.values() if isinstance(v, Reference)}
Arrays = dict[str, Any]


class Node:
    """One op on given tensors: runs a variant's launchers as a plan would, outputs starting as NaN."""

    def __init__(self, op: str, precision: str = "f64", params: Arrays | None = None, **values: Any) -> None:
        self.op, self.precision = OPS[op], precision
        attrs = {k: v for k, v in values.items() if k in self.op.attrs}
        extra = {k: values.get(k) for k in ("start", "key", "k", "v") if k in values or k in ("start", "key")}
        self.inputs = {k: self.cast(values.get(k), slot.pattern) for k, slot in self.op.inputs.items()}
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
    r, drawn = rng(seed), {k: v for k, v in example.items() if k not in op.inputs}
    dims: Arrays = {**{k: v for k, v in op.attrs.items() if not isinstance(v, type)}, **drawn}
    for name, slot in op.inputs.items():
        if name not in example:
            continue
        if isinstance(example[name], np.ndarray):
            drawn[name] = example[name]
            continue
        if not slot.pattern.integer:
            drawn[name] = r.standard_normal(example[name])
            continue
        bound = {"rows": dims.get("rows"), "classes": dims.get("classes") or 0}.get(slot.pattern.bound or "", 3)
        if bound == 0:
            bound = dims.get("features") or drawn["logits"].shape[-1]
        drawn[name] = r.integers(0, bound, example[name])
        if name == "targets":
            drawn[name][r.random(example[name]) < 0.3] = -1
    return drawn


def close(ours: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    theirs = theirs.detach().numpy()
    assert np.linalg.norm(ours - theirs) <= tolerance * (np.linalg.norm(theirs) + 1e-300)


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


def attention_node(at: Arrays, precision: str = "f64", D: int = 5) -> Node:
    width = at["heads"] + 2 * (at.get("kv_heads") or at["heads"])
    return Node("attention", precision, qkv=rng().standard_normal((2, 9, width * D)), **at)


BOUND = {"f32": 1e-5, "f64": 1e-13}
FUSED_SEED = 11


def near(got: Any, expected: Any, precision: str, quantity: str) -> None:
    scale = np.linalg.norm(expected.astype(np.float64)) + 1e-30
    assert np.isfinite(got).all(), f"{quantity} was not written whole"
    assert np.linalg.norm(got.astype(np.float64) - expected) <= BOUND[precision] * scale, quantity


def simple(name: str, precision: str, values: Arrays, params: Arrays) -> Node:
    own = {k: v for k, v in values.items() if k in (*OPS[name].inputs, *OPS[name].attrs)}
    return Node(name, precision, params=params, **own)


def seeds_of(node: Node) -> Arrays:
    shapes = {k: slot.pattern.shape(node.dims) for k, slot in node.op.outputs.items()}
    return {k: node.cast(rng(FUSED_SEED).standard_normal(s), node.op.outputs[k].pattern) for k, s in shapes.items()}
