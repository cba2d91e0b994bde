"""RMSNorm: y = n * weight, n = x * rstd, rstd = 1 / sqrt(mean(x * x) + eps). The forward is done; write the backward.
A row of x has one rstd, and every x of the row moves it."""

import numpy as np

from core import Op, Param, Reference

rms_norm = Op(
    "rms_norm",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={"weight": Param("C", init="ones", decay=False)},
    attrs={"eps": 1e-5},
    examples=[{"x": (2, 3, 8)}, {"x": (3, 5)}, {"x": (1, 1)}],
)


class RmsNormReference(Reference):
    op, saved, reads = "rms_norm", {"rstd": "... : acc"}, ("x", "weight")

    def forward(self, t):
        t.rstd[...] = 1 / np.sqrt(np.mean(t.x * t.x, axis=-1) + t.eps)
        t.y[...] = t.x * t.rstd[..., None] * t.weight

    def backward(self, t):
        #[ from t.dy, t.x, t.rstd and t.weight: t.add("dx", ...) and t.add("dweight", ...), which has t.C elements
        n, dn = t.x * t.rstd[..., None], t.dy * t.weight
        t.add("dx", t.rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True)))
        t.add("dweight", (t.dy * n).reshape(-1, t.C).sum(0))
        #]


def core_ops():
    return [rms_norm]


def core_variants():
    return [RmsNormReference]
