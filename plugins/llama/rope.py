"""Rotary positions, arXiv:2104.09864, over packed queries, keys and values; the values pass through.

The first `width` columns of a head, all by default, are width/2 points of a plane, the others pass through. The points
are the pairs of the first and second half of these columns (the order of most of Hugging Face's files), or of
neighbours (GPT-J's, Cohere's). At position p, with g the `gain`,
    y1 = g (x1 cos(a) - x2 sin(a)),  y2 = g (x2 cos(a) + x1 sin(a)),  a = p w_i,  w_i = base^(-2i/width), i < width/2
so that a query and a key have a product that depends on their distance alone; `reverse` turns by -a (nanochat). The
gradient is turned back:
    dx1 = g (dy1 cos(a) + dy2 sin(a)),  dx2 = g (dy2 cos(a) - dy1 sin(a)).
While decoding, row b of the batch continues at position start[b].

A factor above 1 lets a model read further than the `length` tokens of its pretraining, in one of three ways:
linear (arXiv:2306.15595): every w is divided by `factor`.
llama3 (arXiv:2407.21783): a pair that turns fewer than `low` times in `length` tokens has its w divided by `factor`, a
    pair that turns more than `high` times keeps its w, and w is interpolated between these two, linearly in the turns.
yarn (arXiv:2309.00071): the same two limits, interpolated linearly in i; with `truncate` between whole i. In most
    models `gain` is then 0.1 log(factor) + 1.
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
    D = dims["E"] // width
    dims["kv_heads"], dims["D"], dims["width"] = kv_heads, D, dims["width"] or D
    if dims["width"] % 2 or not 0 < dims["width"] <= D or dims["gain"] <= 0:
        raise BuildError(
            f"width = {dims['width']}, gain = {dims['gain']}; expected an even width of at most D = {D}, and gain > 0",
            hint="width = 0 turns whole heads",
        )


PART = {"width": 0, "pairs": ("halves", "neighbours"), "reverse": False, "gain": 1.0}
SCALING = {"scaling": ("llama3", "linear", "yarn"), "factor": 1.0, "low": 1.0, "high": 4.0}
SCALING |= {"length": 8192, "truncate": True}

rope = Op(
    "rope",
    inputs={"qkv": "B T E"},
    outputs={"y": "B T E"},
    attrs={"heads": int, "kv_heads": 0, "base": 10000.0, **PART, **SCALING},
    infer=settle,
    uses=("start",),
    examples=[
        {"qkv": (2, 7, 48), "heads": 2},
        {"qkv": (2, 11, 8 * 6), "heads": 4, "kv_heads": 2, "base": 500.0},
        # of the five pairs, one keeps its speed, two are between, two are slowed down
        {"qkv": (1, 13, 3 * 10), "heads": 1, "base": 100.0, "factor": 8.0, "length": 40},
        {"qkv": (2, 5, 8 * 10), "heads": 4, "kv_heads": 2, "width": 6, "reverse": True, "gain": 1.25},
        {"qkv": (2, 5, 8 * 10), "heads": 4, "kv_heads": 2, "width": 4, "pairs": "neighbours", "base": 30.0},
        {"qkv": (1, 5, 4 * 16), "heads": 2, "kv_heads": 1, "width": 8, "factor": 3.0, "scaling": "linear"},
        {"qkv": (1, 5, 24), "heads": 1, "base": 50.0, "factor": 4.0, "length": 60, "high": 7.0, "scaling": "yarn"},
        {"qkv": (1, 131, 6), "heads": 1},
        {"qkv": (1, 1, 6), "heads": 1},
        {"qkv": (3, 5, 64 * 4), "heads": 2, "kv_heads": 1},
        {"qkv": (1, 1031, 6), "heads": 1},  # more tokens, then heads, than any thread block takes
        {"qkv": (1, 3, 19 * 64), "heads": 17, "kv_heads": 1},
    ],
    doc="Turns queries and keys by their position, in whole or in part; LLaMA 3's, linear and YaRN's scaling.",
)


def frequencies(t):
    """w, radians a position: (width/2,) f64, below 0 for `reverse`."""
    w = t.base ** (-np.arange(t.width // 2) * 2 / t.width)
    share = share_kept(t, w)
    return w * (share + (1 - share) / t.factor) * (-1 if t.reverse else 1)


def share_kept(t, w):
    """The share of each w that is not divided by `factor`: (width/2,)."""
    if t.scaling == "linear":
        return np.zeros_like(w)
    if t.scaling == "llama3":
        return np.clip((t.length * w / (2 * math.pi) - t.low) / (t.high - t.low), 0, 1)

    def pair(turns):  # the i whose pair turns that often in `length` tokens
        return t.width * math.log(t.length / (turns * 2 * math.pi)) / (2 * math.log(t.base))

    first, last = pair(t.high), pair(t.low)
    if t.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, t.width - 1)
    return 1 - np.clip((np.arange(t.width // 2) - first) / (last - first or 0.001), 0, 1)


def points(by_head, t):
    """Views of the two coordinates of each point of a head, (..., width/2), and of the columns that pass through."""
    turned, rest = by_head[..., : t.width], by_head[..., t.width :]
    if t.pairs == "neighbours":
        return turned[..., ::2], turned[..., 1::2], rest
    return turned[..., : t.width // 2], turned[..., t.width // 2 :], rest


def heads_of(packed, t):
    """Views of the heads that are turned, (B, T, heads + kv_heads, D), and of the values, (B, T, kv_heads, D)."""
    by_head = packed.reshape(t.B, t.T, -1, t.D)
    return by_head[:, :, : -t.kv_heads], by_head[:, :, -t.kv_heads :]


def turn(t, source, target, positions, sign):
    """target = source, both like qkv, with queries and keys turned by sign times their angles; positions: (T,) or
    (B, T)."""
    (x, values), (y, copied) = heads_of(source, t), heads_of(target, t)
    angles = (positions[..., None] * frequencies(t))[..., None, :]
    cos, sin = t.gain * np.cos(angles), sign * t.gain * np.sin(angles)
    x1, x2, rest = points(x, t)
    y1, y2, passed = points(y, t)
    y1[...], y2[...] = x1 * cos - x2 * sin, x2 * cos + x1 * sin
    passed[...], copied[...] = rest, values


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
        start, half = head * t.D, t.width // 2
        if t.pairs == "neighbours":
            point = slice(start + d - d % 2, start + d - d % 2 + 2)
        else:
            point = slice(start + d % half, start + t.width, half)
        turned = d < t.width and head < t.heads + t.kv_heads
        return {"qkv" if tensor == "y" else "dy": (*row, point if turned else column)}
