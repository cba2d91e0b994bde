"""Root mean square normalization, arXiv:1910.07467: y = n * (offset + weight), n = x * rstd, over the last dim.

offset is 0, or 1 for weights that start at 0 (Gemma). rstd = 1 / sqrt(mean(x^2) + eps). With dn = dy * (offset +
weight), the chain rule through rstd removes from dn its projection on n:
    dx = rstd * (dn - n * mean(dn * n)),  dweight = sum of dy * n over all rows.
"""

import numpy as np

from core import Op, Param, Reference
from core.examples import far_rows, scaled_rows

rmsnorm = Op(
    "rmsnorm",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={"weight": Param("C", init="ones", decay=False)},
    attrs={"eps": 1e-5, "offset": 0.0},
    examples=[
        {"x": (4, 7, 64)},
        {"x": (3, 33), "offset": 1.0},
        {"x": (2, 5, 17), "eps": 0.3},
        {"x": (1, 2)},
        {"x": (2, 1031)},  # more columns, then rows, than any thread block has threads
        {"x": (1031, 3)},
        {"x": far_rows(65)},
        {"x": scaled_rows(33)},
    ],
    doc="Scales each row to root mean square 1, then by a weight.",
)


class RmsNormReference(Reference):
    op = "rmsnorm"
    saved = {"rstd": "... : acc"}
    reads = ("x", "weight")
    can_add = ("x",)
    made_of = {
        "y": "x(C) weight",
        "rstd": "x",
        "dx": "x(C) rstd weight(C) dy(C)",
        "dweight": "x rstd dy",
    }

    def forward(self, t):
        t.rstd[...] = 1 / np.sqrt(np.mean(t.x * t.x, axis=-1) + t.eps)
        t.y[...] = t.x * t.rstd[..., None] * (t.offset + t.weight)

    def backward(self, t):
        n, dn = t.x * t.rstd[..., None], t.dy * (t.offset + t.weight)
        t.add("dx", t.rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True)))
        t.add("dweight", (t.dy * n).reshape(-1, t.C).sum(0))
