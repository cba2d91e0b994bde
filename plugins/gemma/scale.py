"""y = by * x. Gradient: dx = by * dy."""

import numpy as np

from core import Op, Reference

scale = Op(
    "scale",
    inputs={"x": "..."},
    outputs={"y": "..."},
    attrs={"by": float},
    padding=("...",),
    examples=[
        {"x": (4, 7, 64), "by": 8.0},
        {"x": (3, 33), "by": -0.3},
        {"x": (1,), "by": 1.0},
        {"x": (3, 1031), "by": 0.7},  # more than any thread block and a rest
    ],
    doc="Every element times one number.",
)


class ScaleReference(Reference):
    op = "scale"
    can_add = ("x",)
    inplace = {"dx": "dy"}
    made_of = {"y": "x", "dx": "dy"}

    def forward(self, t):
        np.multiply(t.x, t.by, out=t.y)

    def backward(self, t):
        t.add("dx", t.dy * t.by)
