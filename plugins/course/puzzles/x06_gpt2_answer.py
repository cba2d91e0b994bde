"""A layer of GPT-2 as TOML. Names: ln_1, qkv, attn, proj, r, ln_2, fc, act, down, y. The gradients of the
model must be those of the shipped one."""

import tempfile
from pathlib import Path

import core

MODEL = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "logits"
loss   = "loss"

[dims]
B = 4
T = 1024
S = 1024
V = 50257
P = "pad(V, 128)"
C = 768
H = 12
L = 12

[graph]
wte    = { op = "embedding", in = "tokens", rows = "P", cols = "C" }
x0     = { op = "position", in = "wte", length = "S" }
h      = { block = "layer", in = "x0", repeat = "L" }
ln_f   = { op = "layernorm", in = "h" }
logits = { op = "matmul", in = "ln_f", features = "P", bias = false, tie = { weight = "wte.weight" } }
loss   = { op = "cross_entropy", in = ["logits", "targets"], classes = "V" }

[init]
"h.*.proj.weight" = "normal(0.02 / sqrt(2*L))"
"h.*.down.weight" = "normal(0.02 / sqrt(2*L))"

[block.layer]
in  = "x"
out = "y"
#[ ten nodes: attention reads x through a norm and adds to it; then the MLP does the same
ln_1 = { op = "layernorm", in = "x" }
qkv  = { op = "matmul", in = "ln_1", features = "3*C" }
attn = { op = "attention", in = "qkv", heads = "H", causal = true }
proj = { op = "matmul", in = "attn", features = "C" }
r    = { op = "add", in = ["x", "proj"] }
ln_2 = { op = "layernorm", in = "r" }
fc   = { op = "matmul", in = "ln_2", features = "4*C" }
act  = { op = "gelu", in = "fc", approx = "tanh" }
down = { op = "matmul", in = "act", features = "C" }
y    = { op = "add", in = ["r", "down"] }
#]
"""


def gradients(dims, tokens, targets):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.toml"
        file.write_text(MODEL, "utf-8")
        return core.load(file, dims=dims, precision="f64").gradients(tokens, targets)
