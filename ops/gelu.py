"""GELU, arXiv:1606.08415: y = x Phi(x), Phi the normal distribution; GPT-2 takes its approximation by tanh.

tanh: y = x (1 + h) / 2,  h = tanh(u),  u = sqrt(2/pi) (x + 0.044715 x^3)
      dy/dx = (1 + h) / 2 + x (1 - h^2) / 2 * u',  u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)
erf:  y = x (1 + erf(x / sqrt 2)) / 2,  dy/dx = (1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi)
"""

import math

import numpy as np

from core import Op, Reference
from core.examples import rows_of

from .erf import erf

gelu = Op(
    "gelu",
    inputs={"x": "..."},
    outputs={"y": "..."},
    attrs={"approx": ("tanh", "erf")},
    padding=("...",),
    examples=[
        {"x": (4, 7, 64)},
        {"x": (3, 33), "approx": "erf"},
        {"x": (1,)},
        {"x": (3, 1031)},  # more than any thread block and a rest
        {"x": rows_of(33, ((0, 1e-3), (0, 1), (0, 30)))},
        {"x": rows_of(33, ((0, 1e-3), (0, 1), (0, 30))), "approx": "erf"},
    ],
    doc="The Gaussian error linear unit.",
)

SLOPE, CUBIC = math.sqrt(2 / math.pi), 0.044715


def phi(x, approx):
    """Phi(x) and its derivative, exact or as the approximation has them."""
    if approx == "erf":
        return (1 + erf(x * math.sqrt(0.5))) / 2, np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    h = np.tanh(SLOPE * (x + CUBIC * x * x * x))
    return (1 + h) / 2, (1 - h * h) / 2 * SLOPE * (1 + 3 * CUBIC * x * x)


class GeluReference(Reference):
    op = "gelu"
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "dy"}
    made_of = {"y": "x", "dx": "x dy"}

    def forward(self, t):
        t.y[...] = t.x * phi(t.x, t.approx)[0]

    def backward(self, t):
        value, slope = phi(t.x, t.approx)
        t.add("dx", t.dy * (value + t.x * slope))
