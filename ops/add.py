"""Sum of two values: y = a + b. Gradient: da = db = dy."""

import numpy as np

from core import Op, Reference

add = Op(
    "add",
    inputs={"a": "...", "b": "..."},
    outputs={"y": "..."},
    commutes=True,
    padding=("...",),
    examples=[
        {"a": (4, 7, 64), "b": (4, 7, 64)},
        {"a": (3, 33), "b": (3, 33)},
        {"a": (1,), "b": (1,)},
        {"a": (3, 1031), "b": (3, 1031)},  # more than any thread block and a rest
    ],
    doc="The sum of two values of one shape: a residual connection.",
)


class AddReference(Reference):
    op = "add"
    can_add = ("a", "b")
    alias = {"da": "dy", "db": "dy"}
    made_of = {"y": "a b", "da": "dy", "db": "dy"}

    def forward(self, t):
        np.add(t.a, t.b, out=t.y)

    def backward(self, t):
        t.add("da", t.dy)
        t.add("db", t.dy)
