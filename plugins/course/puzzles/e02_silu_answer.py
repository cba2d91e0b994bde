"""Your first backward. y = x * s with s = 1 / (1 + exp(-x)). The forward is done; the op check grades the backward."""

import numpy as np

from core import Op, Reference

my_silu = Op("my_silu", inputs={"x": "..."}, outputs={"y": "..."}, examples=[{"x": (4, 7)}, {"x": (33,)}, {"x": (1,)}])


class MySiluReference(Reference):
    op, reads = "my_silu", ("x",)

    def forward(self, t):
        t.y[...] = t.x / (1 + np.exp(-t.x))

    def backward(self, t):
        #[ t.dy is the slope of the loss for y. Which slope has it for x? t.add("dx", ...)
        s = 1 / (1 + np.exp(-t.x))
        t.add("dx", t.dy * (s + t.x * s * (1 - s)))
        #]


def core_ops():
    return [my_silu]


def core_variants():
    return [MySiluReference]
