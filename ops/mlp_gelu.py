"""GPT-2's MLP in a residual stream: f = x weight1^T + bias1, a = gelu(f), y = r + a weight2^T + bias2.

Gradient: da = dy weight2, df = da * gelu'(f), dx = df weight1, dr = dy; parameters as in matmul.py. One op, because
gelu's derivative belongs where da is made. The pattern defines the result, and with it the reference of the op check.
"""

from core import Op, Param

mlp_gelu = Op(
    "mlp_gelu",
    inputs={"x": "... K", "r": "... features"},
    outputs={"y": "... features"},
    params={
        "weight1": Param("hidden K", init="normal(0.02)"),
        "bias1": Param("hidden", init="zeros", decay=False, optional=True),
        "weight2": Param("features hidden", init="normal(0.02)"),
        "bias2": Param("features", init="zeros", decay=False, optional=True),
    },
    attrs={"approx": ("tanh", "erf")},
    replaces="f = matmul(x, weight1, bias1); a = gelu(f); d = matmul(a, weight2, bias2); y = add(r, d)",
    padding=("K", "features", "hidden"),
    examples=[
        {"x": (2, 7, 16), "r": (2, 7, 24), "weight1": (32, 16)},
        {"x": (5, 33), "r": (5, 7), "weight1": (67, 33), "bias1": False, "approx": "erf"},
        {"x": (1, 3), "r": (1, 2), "weight1": (5, 3), "bias2": False},
        {"x": (2, 1031), "r": (2, 24), "weight1": (32, 1031)},  # beyond any tile in each of the four ways
        {"x": (2, 24), "r": (2, 1031), "weight1": (32, 24)},
        {"x": (2, 24), "r": (2, 24), "weight1": (1031, 24)},
        {"x": (1031, 2), "r": (1031, 2), "weight1": (3, 2)},
    ],
    doc="Two linear layers with GELU between them, added to a residual stream.",
)
