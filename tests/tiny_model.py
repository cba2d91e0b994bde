"""A model TOML of two layers, ops that no built-in model needs, and the refusal of a model by its words."""

from __future__ import annotations

import pytest

from core.errors import BuildError, CoreError
from core.op import Op, Param

TINY = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "logits"
loss   = "loss"
[dims]
B = 2
T = 8
S = 16
V = 50
P = "pad(V, 64)"
C = 32
H = 4
L = 2
[graph]
wte    = { op = "embedding", in = "tokens", rows = "P", cols = "C" }
x0     = { op = "position", in = "wte", length = "S" }
h      = { block = "layer", in = "x0", repeat = "L" }
ln_f   = { op = "layernorm", in = "h" }
logits = { op = "matmul", in = "ln_f", features = "P", bias = false, tie = { weight = "wte.weight" } }
loss   = { op = "cross_entropy", in = ["logits", "targets"], classes = "V" }
[block.layer]
in  = "x"
out = "y"
qkv  = { op = "matmul", in = "x", features = "3*C" }
attn = { op = "attention", in = "qkv", heads = "H" }
y    = { op = "add", in = ["x", "attn"] }
[init]
"h.*.qkv.weight" = "normal(0.02 / sqrt(2*L))"
"""
# Ops that no built-in model needs: two outputs with a scalar loss, optional inputs, no inputs, a faulty `infer`.
ROUTER = Op(
    "router",
    inputs={"x": "B T W", "documents?": "B T : i32", "bias?": "W"},
    outputs={"y": "B T W", "balance": ": acc"},
    params={"weight": Param("W W", init="normal(1 / sqrt(W))")},
)
TABLE = Op(
    "table",
    inputs={},
    outputs={"y": "rows cols"},
    params={"weight": Param("rows cols")},
    attrs={"rows": int, "cols": int},
)
FAULTY = Op("faulty", inputs={"x": "... C"}, outputs={"y": "... C"}, infer=lambda dims: dims["nothing"])


def refused(build, *parts: str, kind: type[CoreError] = BuildError) -> str:
    """The message of the error that `build` raises; every part must be in it."""
    with pytest.raises(CoreError) as caught:
        build()
    message = str(caught.value)
    assert caught.type is kind, message
    for part in parts:
        assert part in message, f"{part!r} is not in:\n{message}"
    return message
