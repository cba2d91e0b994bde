"""Ops that are formulas alone, as a plugin's file; a small run with ops of a plugin."""

from __future__ import annotations

from pathlib import Path

TEXT = '''"""Ops from formulas."""

from core import Op, Param

squared_relu = Op(
    "squared_relu",
    inputs={"x": "..."},
    outputs={"y": "..."},
    examples=[{"x": (2, 3)}, {"x": (5, 67)}],
    formulas="""
        r = maximum(x, 0)
        y = r**2
        dx = 2 * r * dy
    """,
)
gate = Op(
    "gate",
    inputs={"a": "...", "b": "..."},
    outputs={"y": "...", "z": "..."},
    attrs={"cap": 3.0, "leak": 0.1},
    examples=[{"a": (2, 3), "b": (2, 3)}, {"a": (5, 67), "b": (5, 67), "cap": 0.7}],
    formulas="""
        s = sigmoid(a)
        y = a * s * b
        t = tanh(b / cap)
        z = where(a > 0, cap * t, leak * cap * t)
        da = dy * b * (s + a * s * (1 - s))
        db = dy * a * s + dz * where(a > 0, 1, leak) * (1 - t * t)
    """,
)
norm = Op(
    "norm",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={"weight": Param("C", init="ones", decay=False), "bias": Param("C", init="zeros", decay=False)},
    attrs={"eps": 1e-5},
    examples=[{"x": (4, 7, 64)}, {"x": (3, 33)}, {"x": (2, 5, 17), "eps": 0.3}, {"x": (131, 3)}],
    formulas="""
        m = mean(x)
        r = rsqrt(mean((x - m)**2) + eps)
        n = (x - m) * r
        y = n * weight + bias
        dn = dy * weight
        dx = r * (dn - mean(dn) - n * mean(dn * n))  # the projections on 1 and n are removed
        dweight = dy * n
        dbias = dy
    """,
)
soft = Op(
    "soft",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    examples=[{"x": (4, 7, 64)}, {"x": (3, 33)}, {"x": (1, 2)}],
    formulas="""
        e = exp(x - max(x))
        y = e / sum(e)
        dx = e / sum(e) * (dy - sum(dy * e) / sum(e))
    """,
)


share = Op(
    "share",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={"weight": Param("C", init="ones")},
    examples=[{"x": (4, 7, 64)}, {"x": (3, 33)}],
    formulas="""
        s = sum(weight * weight)
        r = rsqrt(s + 1)
        y = x * weight * r
        dx = dy * weight * r
        dweight = r * (dy * x - weight * r**2 * sum(dy * x * weight))
    """,
)


def core_ops():
    return [squared_relu, gate, norm, soft, share]
'''
NAMES = ("squared_relu", "gate", "norm", "soft", "share")
MODEL = """
extends = "gpt2_124m"
[dims]
B = 1
T = 8
S = 8
V = 300
C = 16
H = 2
L = 1
[graph]
ln_f = {{ op = "{norm}", in = "h" }}
[block.layer]
act = {{ op = "{act}", in = "fc" }}
"""
CONFIG = """
model = "./model.toml"
[data]
train = "builtin"
tokenizer = "bpe"
vocab_size = 300
[optimizer]
name = "adamw"
lr = 1e-3
[schedule]
name = "constant"
[train]
steps = 2
tokens_per_step = {tokens}
check = {check}
"""


def write_small_run(folder: Path, act: str, norm: str = "layernorm", tokens: int = 8, check: bool = False) -> None:
    """small.toml and model.toml: two steps of a GPT-2 of 16 channels whose MLP and last norm are these ops."""
    (folder / "model.toml").write_text(MODEL.format(act=act, norm=norm))
    (folder / "small.toml").write_text(CONFIG.format(tokens=tokens, check=str(check).lower()))
