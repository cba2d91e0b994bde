"""y = [a | b] along the last dim: values of several nodes for one that reads them packed. Gradient: dy cut in two."""

import numpy as np

from core import Op, Reference

concat = Op(
    "concat",
    inputs={"a": "... A", "b": "... B"},
    outputs={"y": "... A+B"},
    examples=[
        {"a": (4, 7, 64), "b": (4, 7, 32)},
        {"a": (3, 33), "b": (3, 1)},
        {"a": (1, 1), "b": (1, 2)},
        {"a": (2, 1031), "b": (2, 5)},
        {"a": (1031, 2), "b": (1031, 3)},
    ],
    doc="The features of two tensors, one after the other.",
)


class ConcatReference(Reference):
    op = "concat"
    can_add = ("a", "b")

    def forward(self, t):
        np.concatenate([t.a, t.b], axis=-1, out=t.y)

    def backward(self, t):
        t.add("da", t.dy[..., : t.A])
        t.add("db", t.dy[..., t.A :])

    def parts(self, t, tensor, index):
        *row, at = index
        if tensor == "y":
            return {"a": index} if at < t.A else {"b": (*row, at - t.A)}
        return {"dy": (*row, at + (t.A if tensor == "db" else 0))}
