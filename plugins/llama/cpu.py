"""The ops in blocks of rows that stay in cache, over threads. Formulas: rmsnorm.py, rope.py, gated.py; and decoding.

Tables of angles, which follow from shapes alone, are made when a launcher is recorded, and shared by equal nodes.
"""

import math
from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from core import Variant, cdiv
from core.kernels.blocks import grain

from .gated_cpu import swiglu, swiglu_gradient
from .rope import frequencies, heads_of, points, turn


class RmsNormBlocked(Variant):
    op, name, device = "rmsnorm", "blocked", "cpu"
    dtypes = ("f32", "f64")
    saved = {"rstd": "... : acc"}
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [{"x": (150, 768)}]

    def forward(self, t, launch):
        x, y, rstd = t.x.reshape(-1, t.C), t.y.reshape(-1, t.C), t.rstd.reshape(-1)

        def block(lo, hi):
            np.vecdot(x[lo:hi], x[lo:hi], out=rstd[lo:hi])
            rstd[lo:hi] = 1 / np.sqrt(rstd[lo:hi] / t.C + t.eps)
            np.multiply(x[lo:hi], rstd[lo:hi, None], out=y[lo:hi])
            y[lo:hi] *= t.offset + t.weight

        launch.rows(len(x), block, grain=grain(len(x), t.C * x.itemsize))

    def workspace(self, t):
        row_bytes = t.weight.nbytes
        return cdiv(t.rows, grain(t.rows, row_bytes)) * row_bytes

    def backward(self, t, launch):
        x, dy, rstd = t.x.reshape(-1, t.C), t.dy.reshape(-1, t.C), t.rstd.reshape(-1)
        dx = None if t.dx is None else t.dx.reshape(-1, t.C)
        size = grain(len(x), t.C * x.itemsize)
        sums = launch.workspace.view(x.dtype).reshape(-1, t.C)  # dweight of each block, summed in their order

        def block(lo, hi, scratch):
            n, g = scratch.view(x.dtype).reshape(2, size, t.C)[:, : hi - lo]
            np.multiply(x[lo:hi], rstd[lo:hi, None], out=n)
            if t.dweight is not None:
                np.multiply(dy[lo:hi], n, out=g)
                np.add.reduce(g, axis=0, out=sums[lo // size])
            if dx is None:
                return
            np.multiply(dy[lo:hi], t.offset + t.weight, out=g)
            n *= np.vecdot(g, n)[:, None] / t.C
            g -= n
            g *= rstd[lo:hi, None]
            if t.add_dx:
                dx[lo:hi] += g
            else:
                dx[lo:hi] = g

        launch.rows(len(x), block, grain=size, scratch=2 * size * t.C * x.itemsize)
        if t.dweight is not None:
            launch.call(lambda: t.add("dweight", np.add.reduce(sums, axis=0)))


class MlpSwigluBlas(Variant):
    """Saves swiglu's input and not its output: a third less of the MLP's saved bytes."""

    op, name, device = "mlp_swiglu", "blas", "cpu"
    dtypes = ("f32", "f64")
    saved = {"f": "... hidden"}
    reads = ("x", "weight1", "weight2")
    alias = {"dr": "dy"}
    examples = [{"x": (2, 31, 80), "r": (2, 31, 800), "weight1": (2060, 80)}]

    def sizes(self, t):
        """Elements of a and of df."""
        return t.rows * t.hidden // 2, t.rows * t.hidden

    def workspace(self, t):
        return sum(self.sizes(t)) * (t.weight1.nbytes // t.weight1.size)

    def scratch(self, t, launch):
        """a (rows, hidden/2) and df (rows, hidden)."""
        a, df = np.split(launch.workspace.view(t.weight1.dtype), [self.sizes(t)[0]])
        return a.reshape(t.rows, -1), df.reshape(t.rows, -1)

    def forward(self, t, launch):
        x, r, f, y = t.x.reshape(-1, t.K), t.r.reshape(t.rows, -1), t.f.reshape(-1, t.hidden), t.y.reshape(t.rows, -1)
        a, _ = self.scratch(t, launch)
        gate, up = np.split(f, 2, axis=-1)

        def activate(lo, hi):
            swiglu(gate[lo:hi], up[lo:hi], a[lo:hi])

        launch.product(x, t.weight1.T, f)
        launch.rows(t.rows, activate, grain=grain(t.rows, a.strides[0]))
        launch.product(a, t.weight2.T, y)
        launch.rows(t.rows, lambda lo, hi: np.add(y[lo:hi], r[lo:hi], out=y[lo:hi]), grain=grain(t.rows, y.strides[0]))

    def backward(self, t, launch):
        x, dy, f = t.x.reshape(-1, t.K), t.dy.reshape(t.rows, -1), t.f.reshape(-1, t.hidden)
        a, df = self.scratch(t, launch)
        (gate, up), (dgate, dup) = np.split(f, 2, axis=-1), np.split(df, 2, axis=-1)
        size = grain(t.rows, a.strides[0])

        def block(lo, hi, scratch):
            s, g = scratch.view(x.dtype).reshape(2, size, -1)[:, : hi - lo]
            swiglu_gradient(gate[lo:hi], up[lo:hi], a[lo:hi], dgate[lo:hi], dup[lo:hi], s, g)
            np.multiply(g, up[lo:hi], out=a[lo:hi])  # g holds silu(gate): da becomes a

        launch.product(dy, t.weight2, a)  # da
        launch.rows(t.rows, block, grain=size, scratch=2 * size * a.strides[0])
        if t.dweight2 is not None:
            launch.product(dy.T, a, t.dweight2, t.add_dweight2)
        if t.dx is not None:
            launch.product(df, t.weight1, t.dx.reshape(-1, t.K))
        if t.dweight1 is not None:
            launch.product(df.T, x, t.dweight1, t.add_dweight1)
        if t.dr is not None:
            launch.call(lambda: t.add("dr", t.dy))


class RopeBlocked(Variant):
    op, name, device = "rope", "blocked", "cpu"
    dtypes = ("f32", "f64")
    inplace = {"dqkv": "dy"}
    examples = [
        {"qkv": (2, 150, 6 * 64), "heads": 2},
        {"qkv": (3, 7, 2400), "heads": 4, "kv_heads": 2},
        {"qkv": (2, 150, 6 * 64), "heads": 2, "width": 24},
    ]

    def forward(self, t, launch):
        if t.start is None:
            self.turn(t, launch, t.qkv, t.y, 1)
        else:
            launch.call(lambda: turn(t, t.qkv, t.y, t.start[:, None] + np.arange(t.T), 1))

    def backward(self, t, launch):
        self.turn(t, launch, t.dy, t.dqkv, -1)

    def turn(self, t, launch, source, target, sign):
        (x, values), (y, copied) = (
            (part.reshape(t.B * t.T, *part.shape[2:]) for part in heads_of(packed, t)) for packed in (source, target)
        )
        size, half = grain(len(x), x[0].nbytes), t.width // 2
        table = cos_sin(*(getattr(t, name) for name in TABLE), str(x.dtype))

        def block(lo, hi, scratch):
            a, b = scratch.view(x.dtype)[: 2 * size * x.shape[1] * half].reshape(2, size, -1, half)[:, : hi - lo]
            cos, sin = table[:, np.arange(lo, hi) % t.T, None]
            rotate(t, x[lo:hi], y[lo:hi], cos, sign * sin, a, b)
            copied[lo:hi] = values[lo:hi]

        launch.rows(len(x), block, grain=size, scratch=size * x[0].nbytes)


# the names that determine the angles
TABLE = ("T", "width", "base", "reverse", "gain", "scaling", "factor", "low", "high", "length", "truncate")


@lru_cache(maxsize=16)
def cos_sin(*values):
    """(2, T, width/2): gain * cos and gain * sin of all positions below T; values: of TABLE, and the dtype's name."""
    t = SimpleNamespace(**dict(zip(TABLE, values, strict=False)))
    angles = np.arange(t.T)[:, None] * frequencies(t)
    return (t.gain * np.stack([np.cos(angles), np.sin(angles)])).astype(values[-1])


def rotate(t, x, y, cos, sin, a, b):
    """y = x turned, which may share x's memory; a, b: scratch like half of the columns of x that are turned."""
    (x1, x2, rest), (y1, y2, passed) = points(x, t), points(y, t)
    passed[...] = rest
    np.multiply(x1, cos, out=a)
    np.multiply(x2, sin, out=b)
    a -= b
    np.multiply(x1, sin, out=b)
    np.multiply(x2, cos, out=y2)
    y2 += b
    y1[...] = a


class RopeAttentionDecode(Variant):
    """A token's queries and keys are turned and looked up in one go. Forward only."""

    op, name, device = "rope_attention", "blas", "cpu"
    dtypes = ("f32", "f64")
    backward = None
    examples = [{"qkv": (2, 20, 4 * 8), "heads": 2, "kv_heads": 1, "window": 7}]

    def why_not(self, t):
        reasons = {
            f"{t.T} tokens at once; the limit is {TOKENS}, those of a decoding step": t.T > TOKENS,
            "causal = false": not t.causal,
            "documents": t.documents is not None,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def forward(self, t, launch):
        w = frequencies(t)

        def decode():
            for b in range(t.B):  # each as far as it is
                start = 0 if t.start is None else int(t.start[b])
                angles = np.arange(start, start + t.T)[:, None, None] * w
                cos, sin = ((t.gain * f(angles)).astype(t.qkv.dtype) for f in (np.cos, np.sin))
                look_back(t, b, start, cos, sin)

        launch.call(decode)


TOKENS = 40  # that rope_attention takes at once, at most


def look_back(t, b, start, cos, sin):
    """y of the T tokens of row b, which come after `start` others; their keys and values are appended."""
    by_head, end = t.qkv[b].reshape(t.T, -1, t.D), start + t.T
    turned = np.empty((t.T, t.heads + t.kv_heads, t.D), t.qkv.dtype)
    a, c = np.empty((2, *turned.shape[:2], t.width // 2), t.qkv.dtype)
    rotate(t, by_head[:, : -t.kv_heads], turned, cos, sin, a, c)
    q, keys, values = turned[:, : t.heads], turned[:, t.heads :], by_head[:, -t.kv_heads :]
    if t.start is not None:
        cached = [cache[b, :end].reshape(end, t.kv_heads, t.D) for cache in (t.k, t.v)]
        for cache, new in zip(cached, (keys, values), strict=True):
            cache[start:] = new
        keys, values = cached
    q = q.reshape(t.T, t.kv_heads, -1, t.D).transpose(1, 2, 0, 3)
    s = q @ keys.transpose(1, 2, 0)[:, None]  # (kv_heads, group, T, end)
    s *= t.scale or 1 / math.sqrt(t.D)
    if t.softcap:
        s = t.softcap * np.tanh(s / t.softcap)
    if t.T > 1 or t.window:
        distance = np.arange(start, end)[:, None] - np.arange(end)
        s[..., (distance < 0) | (distance >= (t.window or end))] = -math.inf
    s -= s.max(-1, keepdims=True)
    np.exp(s, out=s)
    s /= s.sum(-1, keepdims=True)
    y = s @ values.transpose(1, 0, 2)[:, None]
    t.y[b] = y.transpose(2, 0, 1, 3).reshape(t.T, -1)
