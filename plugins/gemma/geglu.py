"""The gated linear unit of Gemma, arXiv:2002.05202: y = gelu(gate) * up for x = [gate | up] in its last dim.

GELU is approximated by tanh (arXiv:1606.08415), written as a sigmoid: gelu(g) = g s with s = 1 / (1 + exp(-v)),
v = 2 sqrt(2/pi) (g + 0.044715 g^3), since (1 + tanh(v/2)) / 2 = s. With v' = 2 sqrt(2/pi) (1 + 3 * 0.044715 g^2):
    dgate = dy * up * s (1 + g (1 - s) v'),  dup = dy * g s.
"""

import math

import numpy as np

from core import BuildError, Op, Reference
from core.examples import rows_of

SLOPE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715


def halves(dims):
    if dims["E"] % 2:
        raise BuildError(f"x has {dims['E']} features; expected two halves, the gate and what it lets through")


geglu = Op(
    "geglu",
    inputs={"x": "... E"},
    outputs={"y": "... E//2"},
    infer=halves,
    examples=[
        {"x": (4, 7, 64)},
        {"x": (3, 34)},
        {"x": (5, 262)},
        {"x": (1, 2)},
        {"x": (2, 2062)},  # more columns, then rows, than any thread block has threads
        {"x": (1031, 4)},
        {"x": rows_of(34, ((0, 1e-3), (0, 1), (0, 30)))},
    ],
    doc="One half of the features through GELU, times the other half.",
)


def sigmoid(gate):
    return 1 / (1 + np.exp(-SLOPE * (gate + CUBIC * gate * gate * gate)))


class GegluReference(Reference):
    op = "geglu"
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "x"}

    def forward(self, t):
        gate, up = np.split(t.x, 2, axis=-1)
        t.y[...] = gate * sigmoid(gate) * up

    def backward(self, t):
        gate, up = np.split(t.x, 2, axis=-1)
        s, dv = sigmoid(gate), SLOPE * (1 + 3 * CUBIC * gate * gate)
        dgate = t.dy * up * s * (1 + gate * (1 - s) * dv)
        t.add("dx", np.concatenate([dgate, t.dy * gate * s], axis=-1))
