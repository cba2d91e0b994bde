"""Residual sum and layernorm in one pass: s = x + r, y = layernorm(s).

Gradient: dx = dr = ds + (layernorm's dx for dy), where ds is the gradient of the residual stream, if there is one. See
layernorm.py for the formula. The pattern defines the result, and with it the reference of the op check.
"""

import numpy as np

from core import Op, Param
from core.examples import far_rows, scaled_rows

add_layernorm = Op(
    "add_layernorm",
    inputs={"x": "... C", "r": "... C"},
    outputs={"y": "... C", "s": "... C"},
    params={
        "weight": Param("C", init="ones", decay=False),
        "bias": Param("C", init="zeros", decay=False, optional=True),
    },
    attrs={"eps": 1e-5},
    replaces="s = add(x, r); y = layernorm(s, weight, bias)",
    examples=[
        {"x": (4, 7, 64), "r": (4, 7, 64)},
        {"x": (3, 33), "r": (3, 33)},
        {"x": (2, 5, 17), "r": (2, 5, 17), "bias": False},
        {"x": (1, 2), "r": (1, 2), "eps": 1e-3},
        {"x": (2, 1031), "r": (2, 1031)},  # more columns, then rows, than any thread block has threads
        {"x": (1031, 3), "r": (1031, 3)},
        {"x": far_rows(65), "r": (3, 65)},
        {"x": scaled_rows(33), "r": np.zeros((3, 33))},
    ],
    doc="A residual sum and the layernorm of it.",
)
