"""Learned positions: y[b, i] = x[b, i] + weight[i]; while decoding, weight[start[b] + i].

Gradient: dx = dy, dweight[i] = sum over b of dy[b, i]; positions beyond T get none.
"""

import numpy as np

from core import BuildError, Op, Param, Reference, unpadded


def fits(dims):
    length = unpadded(dims["length"])
    if dims["T"] > length:
        raise BuildError(f"T = {dims['T']}, but there are only {length} positions", hint="lower T, or raise `length`")


position = Op(
    "position",
    inputs={"x": "B T C"},
    outputs={"y": "B T C"},
    params={"weight": Param("length C", init="normal(0.02)")},
    attrs={"length": int},
    infer=fits,
    uses=("start",),
    padding=("C", "length"),
    examples=[
        {"x": (2, 7, 8), "length": 11},
        {"x": (3, 5, 33), "length": 5},
        {"x": (1, 1, 1), "length": 1},
        {"x": (1, 1031, 2), "length": 1037},  # more positions, columns, then rows, than any thread block has threads
        {"x": (1, 2, 1031), "length": 3},
        {"x": (1031, 1, 2), "length": 2},
    ],
    doc="Adds a learned vector for each position.",
)


class PositionReference(Reference):
    op = "position"
    alias = {"dx": "dy"}
    can_add = ("x",)

    def forward(self, t):
        if t.start is None:
            np.add(t.x, t.weight[: t.T], out=t.y)
        else:
            np.add(t.x, t.weight[t.start[:, None] + np.arange(t.T)], out=t.y)

    def backward(self, t):
        t.add("dx", t.dy)
        if t.dweight is not None:
            rows = np.zeros_like(t.dweight)
            rows[: t.T] = t.dy.sum(0)
            t.add("dweight", rows)

    def parts(self, t, tensor, index):
        if tensor == "dweight":
            at, column = index
            return {"dy": (slice(None), at, column)} if at < t.T else {}
        return {"x": index, "weight": index[1:]} if tensor == "y" else {"dy": index}
