"""The ops in blocks that stay in cache, over threads. Formulas: scale.py, geglu.py."""

import numpy as np

from core import Variant
from core.kernels.blocks import BLOCK, grain

from .geglu import CUBIC, SLOPE


class ScaleBlocked(Variant):
    op, name, device = "scale", "blocked", "cpu"
    dtypes = ("f32", "f64")
    inplace = {"dx": "dy"}
    examples = [{"x": (50_000,), "by": 0.3}]

    def forward(self, t, launch):
        self.launch(launch, t.x.reshape(-1), t.y.reshape(-1), t.by)

    def backward(self, t, launch):
        self.launch(launch, t.dy.reshape(-1), t.dx.reshape(-1), t.by)

    def launch(self, launch, x, y, by):
        def block(lo, hi):
            np.multiply(x[lo:hi], by, out=y[lo:hi])

        launch.rows(x.size, block, grain=BLOCK // x.itemsize)


class GegluBlocked(Variant):
    op, name, device = "geglu", "blocked", "cpu"
    dtypes = ("f32", "f64")
    reads = ("x",)
    inplace = {"dx": "x"}
    examples = [{"x": (70, 2050)}]

    def forward(self, t, launch):
        y = t.y.reshape(-1, t.E // 2)
        gate, up = np.split(t.x.reshape(-1, t.E), 2, axis=1)

        def block(lo, hi):
            g, s = gate[lo:hi], y[lo:hi]
            sigmoid(g, s)
            s *= g
            s *= up[lo:hi]

        launch.rows(len(y), block, grain=grain(len(y), y.strides[0]))

    def backward(self, t, launch):
        dy = t.dy.reshape(-1, t.E // 2)
        size = grain(len(dy), dy.strides[0])
        (gate, up), (dgate, dup) = (np.split(packed.reshape(-1, t.E), 2, axis=1) for packed in (t.x, t.dx))

        def block(lo, hi, scratch):
            s, a, b = scratch.view(dy.dtype).reshape(3, size, -1)[:, : hi - lo]
            g = gate[lo:hi]
            sigmoid(g, s)
            np.multiply(g, g, out=b)
            b *= 3 * CUBIC
            b += 1
            b *= g
            b *= SLOPE  # g v'
            np.multiply(g, s, out=a)  # gelu
            np.multiply(b, s, out=dgate[lo:hi])  # may be written over the gate, which nobody reads any more
            b -= dgate[lo:hi]
            b += 1
            b *= s
            b *= dy[lo:hi]
            np.multiply(up[lo:hi], b, out=dgate[lo:hi])
            np.multiply(dy[lo:hi], a, out=dup[lo:hi])

        launch.rows(len(dy), block, grain=size, scratch=3 * size * dy.strides[0])


def sigmoid(gate, s):
    """s = 1 / (1 + exp(-v)); exp of a large -v is inf, and s is 0 as it should be."""
    np.multiply(gate, gate, out=s)
    s *= -SLOPE * CUBIC
    s -= SLOPE
    s *= gate
    with np.errstate(over="ignore"):
        np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
