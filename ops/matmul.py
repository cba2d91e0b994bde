"""Linear map: y = x weight^T + bias, weight as (features, K), one row an output.

Gradient: dx = dy weight, dweight = dy^T x, dbias = sum of dy over all rows.
"""

import numpy as np

from core import Op, Param, Reference

matmul = Op(
    "matmul",
    inputs={"x": "... K"},
    outputs={"y": "... features"},
    params={
        "weight": Param("features K", init="normal(0.02)"),
        "bias": Param("features", init="zeros", decay=False, optional=True),
    },
    attrs={"features": int},
    padding=("K", "features"),
    flops="2*rows*K*features",
    examples=[
        {"x": (2, 7, 16), "features": 24},
        {"x": (5, 33), "features": 7, "bias": False},
        {"x": (1, 1), "features": 1},
        {"x": (3, 43, 64), "features": 129},
        {"x": (2, 1031), "features": 3},  # beyond any tile in each of the three ways
        {"x": (2, 3), "features": 1031},
        {"x": (1031, 2), "features": 3},
    ],
    doc="A linear layer, with a bias unless `bias = false`.",
)


class MatmulReference(Reference):
    op = "matmul"
    reads = ("x", "weight")
    can_add = ("x",)
    made_of = {"y": "x weight bias", "dx": "dy weight", "dweight": "dy x", "dbias": "dy"}

    def forward(self, t):
        np.matmul(t.x.reshape(-1, t.K), t.weight.T, out=t.y.reshape(-1, t.features))
        if t.bias is not None:
            t.y += t.bias

    def backward(self, t):
        x, dy = t.x.reshape(-1, t.K), t.dy.reshape(-1, t.features)
        if t.dx is not None:
            t.add("dx", dy @ t.weight)
        if t.dweight is not None:
            t.add("dweight", dy.T @ x)
        t.add("dbias", dy.sum(0))
