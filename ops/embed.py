"""Token embedding and learned positions in one pass: y[b, i] = weight[ids[b, i]] + positions[i].

Gradient: dweight as in embedding.py, dpositions as position.py has dweight. The pattern defines the result, and with it
the reference of the op check.
"""

import numpy as np

from core import Op, Param

from .position import fits

embed = Op(
    "embed",
    inputs={"ids": "B T : i32 < rows"},
    outputs={"y": "B T cols"},
    params={
        "weight": Param("rows cols", init="normal(0.02)"),
        "positions": Param("length cols", init="normal(0.02)"),
    },
    attrs={"rows": int, "cols": int, "length": int},
    infer=fits,
    uses=("start",),
    padding=("rows", "cols", "length"),
    replaces="e = embedding(ids, weight); y = position(e, positions)",
    examples=[
        {"ids": (2, 7), "rows": 11, "cols": 8, "length": 9},
        {"ids": (3, 33), "rows": 5, "cols": 3, "length": 33},
        {"ids": (1, 1), "rows": 1, "cols": 2, "length": 1},
        {"ids": (1, 1031), "rows": 1033, "cols": 2, "length": 1037},  # beyond any thread block in each way
        {"ids": (1, 2), "rows": 3, "cols": 1031, "length": 3},
        {"ids": np.ones((1, 300), np.int32), "rows": 3, "cols": 8, "length": 300},  # one id takes every gradient
    ],
    doc="Rows of a table, one for each id, plus a learned vector for each position.",
)
