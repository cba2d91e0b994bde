"""Residual sum and layernorm in one pass: s = x + r, y = layernorm(s).

Gradient: dx = dr = ds + (layernorm's dx for dy), where ds is what comes along the residual stream, or nothing. See
layernorm.py for the formula. What it computes follows from the pattern, and so does what it is checked against.
"""

from core import Op, Param

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
    ],
    doc="A residual sum and the layernorm of it.",
)
