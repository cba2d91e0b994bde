"""Elementwise and row-wise ops whose formulas are their definition; reference and kernels follow from them.

silu: x / (1 + exp(-x)), arXiv:1702.03118, and silu_gate, a value times it. relu: max(x, 0). relu2: its square,
arXiv:2109.08668. softcap: cap * tanh(x / cap), which keeps logits within cap (Gemma 2, arXiv:2408.00118).
unit_rmsnorm: a row scaled to root mean square 1 (nanochat). unit_layernorm: a row of mean 0 and variance 1 (OLMo,
arXiv:2402.00838).
"""

from core import Op
from core.examples import far_rows, rows_of, scaled_rows

ELEMENTS = [{"x": (4, 7, 64)}, {"x": (3, 33)}, {"x": (1, 1)}, {"x": (3, 1031)}]
ROWS = [{"x": (4, 7, 64)}, {"x": (3, 33), "eps": 0.3}, {"x": (1, 2)}, {"x": (2, 1031)}, {"x": (1031, 3)}]

relu = Op(
    "relu",
    inputs={"x": "..."},
    outputs={"y": "..."},
    padding=("...",),
    examples=ELEMENTS,
    formulas="""
        y = maximum(x, 0)
        dx = where(x > 0, dy, 0)
    """,
    doc="Elements below 0 become 0.",
)
relu2 = Op(
    "relu2",
    inputs={"x": "..."},
    outputs={"y": "..."},
    padding=("...",),
    examples=ELEMENTS,
    formulas="""
        r = maximum(x, 0)
        y = r * r
        dx = 2 * r * dy
    """,
    doc="The square of ReLU.",
)
silu = Op(
    "silu",
    inputs={"x": "..."},
    outputs={"y": "..."},
    padding=("...",),
    examples=[*ELEMENTS, {"x": rows_of(34, ((0, 1e-3), (0, 30)))}],
    formulas="""
        s = sigmoid(x)
        y = x * s
        dx = dy * s * (1 + x * (1 - s))
    """,
    doc="x times the sigmoid of x.",
)
silu_gate = Op(
    "silu_gate",
    inputs={"x": "...", "gate": "..."},
    outputs={"y": "..."},
    padding=("...",),
    examples=[{"x": shape["x"], "gate": shape["x"]} for shape in ELEMENTS],
    formulas="""
        s = sigmoid(gate)
        y = x * gate * s
        dx = dy * gate * s
        dgate = dy * x * s * (1 + gate * (1 - s))
    """,
    doc="x times SiLU of a gate.",
)
softcap = Op(
    "softcap",
    inputs={"x": "..."},
    outputs={"y": "..."},
    attrs={"cap": 30.0},
    padding=("...",),
    examples=[*ELEMENTS, {"x": (3, 7), "cap": 0.7}],
    formulas="""
        t = tanh(x / cap)
        y = cap * t
        dx = dy * (1 - t * t)
    """,
    doc="Elements within -cap and cap, almost unchanged where they are small.",
)
unit_rmsnorm = Op(
    "unit_rmsnorm",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    attrs={"eps": 1e-6},
    examples=[*ROWS, {"x": scaled_rows(33)}],
    formulas="""
        r = rsqrt(mean(x * x) + eps)
        n = x * r
        y = n
        dx = r * (dy - n * mean(dy * n))
    """,
    doc="Scales each row to root mean square 1, without a weight.",
)
unit_layernorm = Op(
    "unit_layernorm",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    attrs={"eps": 1e-5},
    examples=[*ROWS, {"x": far_rows(65)}],
    formulas="""
        m = mean(x)
        r = rsqrt(mean((x - m) ** 2) + eps)
        n = (x - m) * r
        y = n
        dx = r * (dy - mean(dy) - n * mean(dy * n))
    """,
    doc="Normalizes each row to mean 0 and variance 1, without weight and bias.",
)
