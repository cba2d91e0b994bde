"""GELU by tanh in blocks, with a sigmoid in tanh's place: (1 + tanh u) / 2 = 1 / (1 + exp(-2 u)), and exp is faster.

With g = 1 / (1 + exp(-2u)) and a = x 2u':  y = x g,  dy/dx = g + g (1 - g) a = g (1 + a - g a). The erf form is the
reference's alone.
"""

import numpy as np

from core import Variant
from core.kernels.blocks import BLOCK, carve

from ..gelu import CUBIC, SLOPE


def gate(x, square, g):
    """square = x^2, g = 1 / (1 + exp(-2u))."""
    np.multiply(x, x, out=square)
    np.multiply(square, -2 * SLOPE * CUBIC, out=g)
    g -= 2 * SLOPE
    g *= x
    with np.errstate(over="ignore"):  # exp of a large -2u is inf, and g is 0 as it should be
        np.exp(g, out=g)
    g += 1
    np.reciprocal(g, out=g)


class GeluBlocked(Variant):
    op, name, device = "gelu", "blocked", "cpu"
    dtypes = ("f32", "f64")
    reads = ("x",)
    inplace = {"dx": "dy"}
    examples = [{"x": (50_000,)}]

    def why_not(self, t):
        return None if t.approx == "tanh" else "it has the tanh form only"

    def forward(self, t, launch):
        x, y = t.x.reshape(-1), t.y.reshape(-1)

        def block(lo, hi, scratch):
            square, g = carve(scratch, x.dtype, (hi - lo,), (hi - lo,))
            gate(x[lo:hi], square, g)
            np.multiply(x[lo:hi], g, out=y[lo:hi])

        launch.rows(x.size, block, grain=BLOCK // x.itemsize, scratch=2 * BLOCK)

    def backward(self, t, launch):
        if t.dx is None:
            return
        x, dy, dx = t.x.reshape(-1), t.dy.reshape(-1), t.dx.reshape(-1)

        def block(lo, hi, scratch):
            a, g = carve(scratch, x.dtype, (hi - lo,), (hi - lo,))
            gate(x[lo:hi], a, g)
            a *= 6 * SLOPE * CUBIC
            a += 2 * SLOPE  # 2u'
            a *= x[lo:hi]
            slope = carve(scratch[2 * BLOCK :], x.dtype, (hi - lo,))[0]
            np.multiply(a, g, out=slope)
            a -= slope
            a += 1
            a *= g
            np.multiply(dy[lo:hi], a, out=dx[lo:hi])

        launch.rows(x.size, block, grain=BLOCK // x.itemsize, scratch=3 * BLOCK)
