"""LoRA, arXiv:2106.09685: y = W x + bias + (alpha / rank) B A x, with A (rank, K) drawn and B (features, rank) zero.

W stays as it is; A and B train: [train] only = ["*.lora_*"]. Of a matmul node h.0.qkv, A is h.0.qkv.lora_a.weight and B
h.0.qkv.lora_b.weight. With dropout, A sees x with some elements dropped.
"""

import numpy as np

from core import Adapter, BuildError, Op, Reference

lora_add = Op(
    "lora_add",
    inputs={"a": "...", "b": "..."},
    outputs={"y": "..."},
    attrs={"scale": 1.0},
    padding=("...",),
    examples=[{"a": (3, 5), "b": (3, 5), "scale": 0.25}, {"a": (2, 1031), "b": (2, 1031), "scale": 2.0}],
    doc="A matrix product and a scaled low-rank one beside it: y = a + scale b.",
)


class LoraAddReference(Reference):
    op = "lora_add"
    can_add = ("a", "b")
    alias = {"da": "dy"}
    made_of = {"y": "a b", "da": "dy", "db": "dy"}

    def forward(self, t):
        np.multiply(t.b, t.scale, out=t.y)
        t.y += t.a

    def backward(self, t):
        t.add("da", t.dy)
        t.add("db", t.scale * t.dy)


class LowRank(Adapter):
    """Low-rank matrices beside the matmul nodes that `match` names."""

    name = "lora"
    options = {"match": ["*"], "rank": 8, "alpha": 16.0, "dropout": 0.0}

    def apply(self, edit, options):
        rank, p = options["rank"], options["dropout"]
        if rank < 1 or p >= 1:
            raise BuildError(f"{edit.where}: rank is {rank} and dropout {p}; expected rank >= 1 and dropout below 1")
        for node in edit.matching(options["match"], "matmul"):
            name, value, last = node.name, node.inputs["x"], node
            if p:
                last = edit.add(f"{name}.lora_in", "dropout", {"x": value}, last, p=p)
                value = last.name
            a = edit.add(f"{name}.lora_a", "matmul", {"x": value}, last, features=rank, bias=False)
            wide = {"features": node.spec["features"], "bias": False}
            b = edit.add(f"{name}.lora_b", "matmul", {"x": a.name}, a, **wide)
            total = edit.add(f"{name}.lora", "lora_add", {"a": name, "b": b.name}, b, scale=options["alpha"] / rank)
            edit.redirect(name, total.name, but=[total])
            edit.init |= {f"{a.name}.weight": "uniform(1 / sqrt(K))", f"{b.name}.weight": "zeros"}
