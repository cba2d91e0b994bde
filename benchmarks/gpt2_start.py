"""GPT-2 124M at its first step: shapes, first values, tokens and options of AdamW, the same for all peers."""

from __future__ import annotations

import numpy as np

V, P, S, C, H, L = 50257, 50304, 1024, 768, 12, 12  # vocabulary, with padding, positions, width, heads, layers
LR, BETAS, EPS, DECAY, CLIP = 1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0

BLOCK = {  # parameter -> shape, in llm.c's order
    "ln_1.weight": (C,), "ln_1.bias": (C,), "qkv.weight": (3 * C, C), "qkv.bias": (3 * C,),
    "proj.weight": (C, C), "proj.bias": (C,), "ln_2.weight": (C,), "ln_2.bias": (C,),
    "fc.weight": (4 * C, C), "fc.bias": (4 * C,), "down.weight": (C, 4 * C), "down.bias": (C,),
}  # fmt: skip
SHAPES = {
    "wte.weight": (V, C), "x0.weight": (S, C), **{f"h.{i}.{n}": s for n, s in BLOCK.items() for i in range(L)},
    "ln_f.weight": (C,), "ln_f.bias": (C,),
}  # fmt: skip


def draw(name):
    """A parameter's first value, f32: the same for all peers."""
    shape = SHAPES[name]
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    scale = 0.02 / (2 * L) ** 0.5 if ".proj." in name or ".down." in name else 0.02
    stream = np.random.Generator(np.random.PCG64(list(SHAPES).index(name)))
    return stream.standard_normal(shape, np.float32) * np.float32(scale)


def draw_tokens(batch, seq):
    """batch*seq + 1 tokens: inputs are all but the last, targets all but the first."""
    return np.random.Generator(np.random.PCG64(1337)).integers(0, V, batch * seq + 1)
