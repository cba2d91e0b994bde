"""LLaMA's MLP in a residual stream: f = x weight1^T, a = swiglu(f), y = r + a weight2^T.

Gradient: da = dy weight2, df from da as in gated.py, dx = df weight1, dr = dy, dweight1 = df^T x, dweight2 = dy^T a.
One op, because a need not be saved: the kernel that computes df from f computes a too. The pattern defines the result,
and with it the reference of the op check.
"""

from core import BuildError, Op, Param


def settle(dims):
    if dims.get("hidden", 0) % 2:
        raise BuildError(f"weight1 has {dims['hidden']} rows; expected an even number of rows: gate and up projections")


mlp_swiglu = Op(
    "mlp_swiglu",
    inputs={"x": "... K", "r": "... features"},
    outputs={"y": "... features"},
    params={
        "weight1": Param("hidden K", init="normal(0.02)"),
        "weight2": Param("features hidden//2", init="normal(0.02)"),
    },
    replaces="f = matmul(x, weight1, bias=False); a = swiglu(f); d = matmul(a, weight2, bias=False); y = add(r, d)",
    infer=settle,
    examples=[
        {"x": (2, 7, 16), "r": (2, 7, 24), "weight1": (32, 16)},
        {"x": (5, 33), "r": (5, 7), "weight1": (18, 33)},
        {"x": (1, 1), "r": (1, 1), "weight1": (2, 1)},
        {"x": (2, 1031), "r": (2, 24), "weight1": (32, 1031)},  # beyond any tile in each of the four ways
        {"x": (2, 24), "r": (2, 1031), "weight1": (32, 24)},
        {"x": (2, 24), "r": (2, 24), "weight1": (2062, 24)},
        {"x": (1031, 2), "r": (1031, 2), "weight1": (4, 2)},
    ],
    doc="The gated MLP of LLaMA, added to a residual stream.",
)
