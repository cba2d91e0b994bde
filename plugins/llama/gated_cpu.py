"""Gated linear units in blocks of rows that stay in cache, over threads. Formulas: gated.py."""

import numpy as np

from core import Variant
from core.kernels.blocks import grain

from .gated import CUBIC, SLOPE


class _GatedBlocked(Variant):
    device = "cpu"
    dtypes = ("f32", "f64")
    reads = ("x",)
    inplace = {"dx": "x"}
    examples = [{"x": (70, 2050)}]

    def forward(self, t, launch):
        y = t.y.reshape(-1, t.E // 2)
        gate, up = np.split(t.x.reshape(-1, t.E), 2, axis=-1)
        activate = {"swiglu": swiglu, "geglu": geglu}[self.op]

        def block(lo, hi):
            activate(gate[lo:hi], up[lo:hi], y[lo:hi])

        launch.rows(len(y), block, grain=grain(len(y), y.strides[0]))

    def backward(self, t, launch):
        x, dx, dy = t.x.reshape(-1, t.E), t.dx.reshape(-1, t.E), t.dy.reshape(-1, t.E // 2)
        size = grain(len(x), dy.strides[0])
        (gate, up), (dgate, dup) = np.split(x, 2, axis=-1), np.split(dx, 2, axis=-1)
        differentiate, parts = {"swiglu": (swiglu_gradient, 2), "geglu": (geglu_gradient, 3)}[self.op]

        def block(lo, hi, scratch):
            own = scratch.view(x.dtype).reshape(parts, size, -1)[:, : hi - lo]
            differentiate(gate[lo:hi], up[lo:hi], dy[lo:hi], dgate[lo:hi], dup[lo:hi], *own)

        launch.rows(len(x), block, grain=size, scratch=parts * size * dy.strides[0])


class SwigluBlocked(_GatedBlocked):
    op, name = "swiglu", "blocked"


class GegluBlocked(_GatedBlocked):
    op, name = "geglu", "blocked"


# --- on arrays of one shape. A gradient may be written over gate and up; s and the names after it are scratch -----


def swiglu(gate, up, y):
    """y = silu(gate) * up; exp of a large -gate is inf, and y is 0 as it should be."""
    np.negative(gate, out=y)
    np.exp(y, out=y)
    y += 1
    np.divide(gate, y, out=y)
    y *= up


def swiglu_gradient(gate, up, dy, dgate, dup, s, g):
    """dgate, dup of swiglu; g becomes silu(gate)."""
    np.negative(gate, out=s)
    np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
    np.multiply(gate, s, out=g)  # silu
    np.multiply(s, g, out=dgate)
    np.subtract(g, dgate, out=dgate)
    dgate += s  # s (1 + gate (1 - s))
    dgate *= up
    dgate *= dy
    np.multiply(g, dy, out=dup)


def geglu(gate, up, y):
    """y = gelu(gate) * up."""
    geglu_sigmoid(gate, y)
    y *= gate
    y *= up


def geglu_gradient(gate, up, dy, dgate, dup, s, a, b):
    """dgate, dup of geglu."""
    geglu_sigmoid(gate, s)
    np.multiply(gate, gate, out=b)
    b *= 3 * CUBIC
    b += 1
    b *= gate
    b *= SLOPE  # g v'
    np.multiply(gate, s, out=a)  # gelu
    np.multiply(b, s, out=dgate)  # may be written over the gate, which has no further reader
    b -= dgate
    b += 1
    b *= s
    b *= dy
    np.multiply(up, b, out=dgate)
    np.multiply(dy, a, out=dup)


def geglu_sigmoid(gate, s):
    """s = 1 / (1 + exp(-v)); exp of a large -v is inf, and s is 0 as it should be."""
    np.multiply(gate, gate, out=s)
    s *= -SLOPE * CUBIC
    s -= SLOPE
    s *= gate
    with np.errstate(over="ignore"):
        np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
