"""Linear map into a residual stream: y = r + x weight^T + bias.

Gradient: dr = dy; the others as in matmul.py. The pattern defines the result, and with it the reference of the op
check.
"""

from core import Op, Param

matmul_add = Op(
    "matmul_add",
    inputs={"x": "... K", "r": "... features"},
    outputs={"y": "... features"},
    params={
        "weight": Param("features K", init="normal(0.02)"),
        "bias": Param("features", init="zeros", decay=False, optional=True),
    },
    replaces="p = matmul(x, weight, bias); y = add(r, p)",
    padding=("K", "features"),
    examples=[
        {"x": (2, 7, 16), "r": (2, 7, 24)},
        {"x": (5, 33), "r": (5, 7), "bias": False},
        {"x": (1, 3), "r": (1, 2)},
        {"x": (2, 1031), "r": (2, 3)},  # beyond any tile in each of the three ways
        {"x": (2, 3), "r": (2, 1031)},
        {"x": (1031, 2), "r": (1031, 3)},
    ],
    doc="A linear layer added to a residual stream.",
)
