"""The gated linear unit of LLaMA, arXiv:2002.05202: y = silu(gate) * up for x = [gate | up] in its last dim.

silu(g) = g s, s = 1 / (1 + exp(-g)), so that d silu / dg = s (1 + g (1 - s)):
    dgate = dy * up * s (1 + g (1 - s)),  dup = dy * g s.
"""

import numpy as np

from core import BuildError, Op, Reference
from core.examples import rows_of


def halves(dims):
    if dims["E"] % 2:
        raise BuildError(f"x has {dims['E']} features; expected two halves, the gate and what it lets through")


swiglu = Op(
    "swiglu",
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
    doc="One half of the features through SiLU, times the other half.",
)


class SwigluReference(Reference):
    op = "swiglu"
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "x"}

    def forward(self, t):
        gate, up = np.split(t.x, 2, axis=-1)
        t.y[...] = gate / (1 + np.exp(-gate)) * up

    def backward(self, t):
        gate, up = np.split(t.x, 2, axis=-1)
        s = 1 / (1 + np.exp(-gate))
        dgate = t.dy * up * s * (1 + gate * (1 - s))
        t.add("dx", np.concatenate([dgate, t.dy * gate * s], axis=-1))
