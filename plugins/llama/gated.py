"""Gated linear units, arXiv:2002.05202: y = activation(gate) * up for x = [gate | up] in its last dim.

Both activations are g s, s = 1 / (1 + exp(-v)), so that with v' = dv/dg their derivative is s (1 + g (1 - s) v'):
    dgate = dy * up * s (1 + g (1 - s) v'),  dup = dy * g s.
swiglu has SiLU, v = g. geglu has GELU as approximated by tanh (arXiv:1606.08415), v = 2 sqrt(2/pi) (g + 0.044715 g^3),
since (1 + tanh(v/2)) / 2 = s.
"""

import math

import numpy as np

from core import BuildError, Op, Reference
from core.examples import rows_of

SLOPE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715


def halves(dims):
    if dims["E"] % 2:
        raise BuildError(f"x has {dims['E']} features; expected an even number of features: gate and up projections")


GATED = {
    "inputs": {"x": "... E"},
    "outputs": {"y": "... E//2"},
    "infer": halves,
    "examples": [
        {"x": (4, 7, 64)},
        {"x": (3, 34)},
        {"x": (5, 262)},
        {"x": (1, 2)},
        {"x": (2, 2062)},  # more columns, then rows, than any thread block has threads
        {"x": (1031, 4)},
        {"x": rows_of(34, ((0, 1e-3), (0, 1), (0, 30)))},
    ],
}
swiglu = Op("swiglu", **GATED, doc="One half of the features through SiLU, times the other half.")
geglu = Op("geglu", **GATED, doc="One half of the features through GELU, times the other half.")


def exponent(op, g):
    """v and v' of that op's activation, like g."""
    if op == "swiglu":
        return g, 1
    return SLOPE * (g + CUBIC * g * g * g), SLOPE * (1 + 3 * CUBIC * g * g)


class _GatedReference(Reference):
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "x"}

    def forward(self, t):
        gate, up = np.split(t.x, 2, axis=-1)
        v, _ = exponent(self.op, gate)
        t.y[...] = gate / (1 + np.exp(-v)) * up

    def backward(self, t):
        gate, up = np.split(t.x, 2, axis=-1)
        v, dv = exponent(self.op, gate)
        s = 1 / (1 + np.exp(-v))
        dgate = t.dy * up * s * (1 + gate * (1 - s) * dv)
        t.add("dx", np.concatenate([dgate, t.dy * gate * s], axis=-1))

    def parts(self, t, tensor, index):
        *row, column = index
        half = t.E // 2
        both = {"x": (*row, slice(column % half, None, half))}
        if tensor == "y":
            return both
        return {"dy": (*row, column % half)} | (both if column < half else {"x": (*row, column - half)})


class SwigluReference(_GatedReference):
    op = "swiglu"


class GegluReference(_GatedReference):
    op = "geglu"
