"""Layer normalization, arXiv:1607.06450: y = n * weight + bias, n = (x - mean) * rstd, over the last dim.

mean = mean(x), rstd = 1 / sqrt(mean((x - mean)^2) + eps). With dn = dy * weight, the chain rule through mean and
rstd removes from dn its projections on 1 and on n:
    dx = rstd * (dn - mean(dn) - n * mean(dn * n)),  dweight = sum of dy * n,  dbias = sum of dy over all rows.
"""

import numpy as np

from core import Op, Param, Reference
from core.examples import far_rows, scaled_rows

layernorm = Op(
    "layernorm",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={
        "weight": Param("C", init="ones", decay=False),
        "bias": Param("C", init="zeros", decay=False, optional=True),
    },
    attrs={"eps": 1e-5},
    examples=[
        {"x": (4, 7, 64)},
        {"x": (3, 33)},
        {"x": (2, 5, 17), "bias": False},
        {"x": (1, 2), "eps": 1e-3},
        {"x": (2, 1031)},  # more columns, then rows, than any thread block has threads
        {"x": (1031, 3)},
        {"x": far_rows(65)},  # the mean of the squares less the square of the mean has few digits left
        {"x": scaled_rows(33)},
    ],
    doc="Normalizes each row to mean 0 and variance 1, then scales and shifts it.",
)


class LayerNormReference(Reference):
    op = "layernorm"
    saved = {"mean": "... : acc", "rstd": "... : acc"}
    reads = ("x", "weight")
    can_add = ("x",)
    made_of = {
        "y": "x(C) weight bias",
        "mean": "x",
        "rstd": "x",
        "dx": "x(C) mean rstd weight(C) dy(C)",
        "dweight": "x mean rstd dy",
        "dbias": "dy",
    }

    def forward(self, t):
        t.mean[...] = t.x.mean(-1)
        centred = t.x - t.mean[..., None]
        t.rstd[...] = 1 / np.sqrt(np.mean(centred * centred, axis=-1) + t.eps)
        y = centred * t.rstd[..., None] * t.weight
        t.y[...] = y if t.bias is None else y + t.bias

    def backward(self, t):
        n = (t.x - t.mean[..., None]) * t.rstd[..., None]
        dn = t.dy * t.weight
        along_n = np.mean(dn * n, axis=-1, keepdims=True)
        t.add("dx", t.rstd[..., None] * (dn - dn.mean(-1, keepdims=True) - n * along_n))
        t.add("dweight", (t.dy * n).reshape(-1, t.C).sum(0))
        t.add("dbias", t.dy.reshape(-1, t.C).sum(0))
