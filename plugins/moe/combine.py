"""The sum of a token's k expert outputs, weighted by their shares: y = sum_j share_j x_j.

Gradient: dx_j = share_j dy, dshare_j = x_j . dy.
"""

import numpy as np

from core import Op, Reference

combine = Op(
    "combine",
    inputs={"x": "... k C", "share": "... k"},
    outputs={"y": "... C"},
    examples=[
        {"x": (2, 7, 2, 16), "share": (2, 7, 2)},
        {"x": (5, 3, 33), "share": (5, 3)},
        {"x": (1, 1, 5), "share": (1, 1)},
        {"x": (2, 2, 1031), "share": (2, 2)},  # more columns, rows, then experts, than any thread block takes
        {"x": (1031, 1, 3), "share": (1031, 1)},
        {"x": (2, 17, 3), "share": (2, 17)},
    ],
    doc="The weighted sum of the outputs of a token's experts.",
)


class CombineReference(Reference):
    op = "combine"
    reads = ("x", "share")
    can_add = ("x", "share")
    made_of = {"y": "x share", "dx": "share dy", "dshare": "x dy"}

    def forward(self, t):
        np.matmul(t.share[..., None, :], t.x, out=t.y[..., None, :])

    def backward(self, t):
        if t.dx is not None:
            t.add("dx", t.share[..., None] * t.dy[..., None, :])
        if t.dshare is not None:
            t.add("dshare", np.matmul(t.x, t.dy[..., None]))
