"""Rotary positions, arXiv:2104.09864, over packed queries, keys and values; the values pass through.

A head's first half and second half are D/2 points of a plane (the order of Hugging Face's files). At position p,
    y1 = x1 cos(a) - x2 sin(a),  y2 = x2 cos(a) + x1 sin(a),  a = p w_i,  w_i = base^(-2i/D), i < D/2
so that a query and a key have a product that depends on their distance alone. The gradient is turned back:
    dx1 = dy1 cos(a) + dy2 sin(a),  dx2 = dy2 cos(a) - dy1 sin(a).
While decoding, row b of the batch continues at position start[b].

LLaMA 3.1 (arXiv:2407.21783) reads further than the `length` tokens of its pretraining. A pair that turns fewer than
`low` times in them has its w divided by `factor`, a pair that turns more than `high` times keeps its w, and w is
interpolated between these two, linearly in the number of turns.
"""

import math

import numpy as np

from core import BuildError, Op, Reference


def settle(dims):
    heads, kv_heads = dims["heads"], dims["kv_heads"] or dims["heads"]
    width = heads + 2 * kv_heads
    if heads < 1 or kv_heads < 1 or dims["E"] % (2 * width):
        raise BuildError(
            f"qkv has {dims['E']} features, heads = {heads}, kv_heads = {kv_heads}; expected heads of an even width D",
            hint='the layer before it has features = "(heads + 2*kv_heads) * D"',
        )
    if dims["base"] <= 1 or dims["factor"] < 1 or not dims["low"] < dims["high"]:
        raise BuildError("expected base > 1, factor >= 1 and low < high", hint="factor = 1 means no scaling")
    dims["kv_heads"], dims["D"] = kv_heads, dims["E"] // width


rope = Op(
    "rope",
    inputs={"qkv": "B T E"},
    outputs={"y": "B T E"},
    attrs={"heads": int, "kv_heads": 0, "base": 10000.0, "factor": 1.0, "low": 1.0, "high": 4.0, "length": 8192},
    infer=settle,
    uses=("start",),
    examples=[
        {"qkv": (2, 7, 48), "heads": 2},
        {"qkv": (2, 11, 8 * 6), "heads": 4, "kv_heads": 2, "base": 500.0},
        # of the five pairs, one keeps its speed, two are between, two are slowed down
        {"qkv": (1, 13, 3 * 10), "heads": 1, "base": 100.0, "factor": 8.0, "length": 40},
        {"qkv": (1, 131, 6), "heads": 1},
        {"qkv": (1, 1, 6), "heads": 1},
        {"qkv": (3, 5, 64 * 4), "heads": 2, "kv_heads": 1},
        {"qkv": (1, 1031, 6), "heads": 1},  # more tokens, then heads, than any thread block takes
        {"qkv": (1, 3, 19 * 64), "heads": 17, "kv_heads": 1},
    ],
    doc="Turns queries and keys by their position; LLaMA 3's scaling for long contexts.",
)


def frequencies(t):
    """w, radians a position: (D/2,) f64."""
    w = t.base ** (-np.arange(t.D // 2) * 2 / t.D)
    turns = t.length * w / (2 * math.pi)
    share = np.clip((turns - t.low) / (t.high - t.low), 0, 1)  # of w that is not divided
    return w * (share + (1 - share) / t.factor)


def heads_of(packed, t):
    """Views of the heads that are turned, (B, T, heads + kv_heads, D), and of the values, (B, T, kv_heads, D)."""
    by_head = packed.reshape(t.B, t.T, -1, t.D)
    return by_head[:, :, : -t.kv_heads], by_head[:, :, -t.kv_heads :]


def turn(t, source, target, positions, sign):
    """target = source, both like qkv, with queries and keys turned by sign times their angles; positions: (T,) or
    (B, T)."""
    (x, values), (y, copied) = heads_of(source, t), heads_of(target, t)
    angles = (positions[..., None] * frequencies(t))[..., None, :]
    cos, sin = np.cos(angles), sign * np.sin(angles)
    x1, x2 = np.split(x, 2, axis=-1)
    y[...] = np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
    copied[...] = values


class RopeReference(Reference):
    op = "rope"
    can_add = ("qkv",)
    inplace = {"dqkv": "dy"}

    def forward(self, t):
        positions = np.arange(t.T)
        turn(t, t.qkv, t.y, positions if t.start is None else t.start[:, None] + positions, 1)

    def backward(self, t):
        dqkv = np.empty_like(t.dy)
        turn(t, t.dy, dqkv, np.arange(t.T), -1)
        t.add("dqkv", dqkv)

    def parts(self, t, tensor, index):
        *row, column = index
        head, d = divmod(column, t.D)
        half = t.D // 2
        turned = slice(head * t.D + d % half, (head + 1) * t.D, half)  # the two coordinates of a point
        return {"qkv" if tensor == "y" else "dy": (*row, turned if head < t.heads + t.kv_heads else column)}
