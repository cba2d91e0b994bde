"""Embedding: y = weight[ids], one row a token.

Gradient: dweight[r] = sum of dy over the places where ids == r. Only the rows that occur are touched, so the
gradient is `partial`: the plan fills the others with zeros, and backward always adds.
"""

import numpy as np

from core import Op, Param, Reference

embedding = Op(
    "embedding",
    inputs={"ids": "... : i32 < rows"},
    outputs={"y": "... cols"},
    params={"weight": Param("rows cols", init="normal(0.02)")},
    attrs={"rows": int, "cols": int},
    padding=("rows", "cols"),
    examples=[
        {"ids": (2, 7), "rows": 11, "cols": 8},
        {"ids": (3, 33), "rows": 5, "cols": 3},
        {"ids": (1,), "rows": 1, "cols": 1},
        {"ids": (1031,), "rows": 1033, "cols": 2},  # beyond any thread block in each way
        {"ids": (2,), "rows": 3, "cols": 1031},
        {"ids": np.ones(300, np.int32), "rows": 3, "cols": 2},  # one id takes every gradient
    ],
    doc="Rows of a table, one for each id.",
)


class EmbeddingReference(Reference):
    op = "embedding"
    reads = ("ids",)
    partial = ("weight",)

    def forward(self, t):
        np.take(t.weight, t.ids, axis=0, out=t.y)

    def backward(self, t):
        if t.dweight is None:
            return
        ids = t.ids.reshape(-1)
        order = np.argsort(ids, kind="stable")  # equal ids side by side, in their order: the sum has one order
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        t.dweight[ids[order[starts]]] += np.add.reduceat(t.dy.reshape(-1, t.cols)[order], starts, axis=0)

    def parts(self, t, tensor, index):
        *row, column = index
        if tensor == "y":
            return {"ids": (*row,), "weight": (t.ids[(*row,)], column)}
        return {"ids": (...,), "dy": [(*place, column) for place in np.argwhere(t.ids == row[0])]}
