"""Dropout, arXiv:1207.0580: y = x / (1 - p) where an element is kept, 0 where it is not, with probability p.

Gradient: dx = dy / (1 - p) where kept, else 0. The mask is a function of t.key and of the element's place
(philox.py), so backward computes it again and nothing is saved. Outside training t.key is None and y = x.
"""

import numpy as np

from core import BuildError, Op, Reference

from .philox import words


def probability(dims):
    if not 0 <= dims["p"] < 1:
        raise BuildError(f"p = {dims['p']}; expected a probability, 0 <= p < 1", hint="p is how much is dropped")


dropout = Op(
    "dropout",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    attrs={"p": 0.1},
    infer=probability,
    uses=("random",),
    padding=("C",),
    examples=[
        {"x": (4, 7, 64)},
        {"x": (3, 33), "p": 0.5},
        {"x": (2, 5), "p": 0.0},
        {"x": (1, 1)},
        {"x": (2, 1031)},  # more columns, then rows, than any thread block has threads
        {"x": (1031, 3)},
    ],
    doc="Drops elements at random while training.",
)


def scaled(t, values):
    """`values` with the factor 1 / (1 - p) where an element is kept, 0 elsewhere."""
    if t.key is None:
        return values
    return np.where(words(t.key, values.shape) >= np.uint32(t.p * 2**32), values * (1 / (1 - t.p)), 0)


class DropoutReference(Reference):
    op = "dropout"
    can_add = ("x",)
    inplace = {"dx": "dy"}
    made_of = {"y": "x", "dx": "dy"}

    def forward(self, t):
        t.y[...] = scaled(t, t.x)

    def backward(self, t):
        t.add("dx", scaled(t, t.dy))
