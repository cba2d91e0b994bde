"""The linear layer with BLAS writing straight into its outputs, in pieces over threads. Formulas: ../matmul.py."""

import numpy as np

from core import Variant
from core.kernels.blocks import BLOCK, carve, grain


class MatmulBlas(Variant):
    op, name, device = "matmul", "blas", "cpu"
    dtypes = ("f32", "f64")
    reads = ("x", "weight")
    examples = [{"x": (2, 31, 601), "features": 1030}]

    def forward(self, t, launch):
        x, y = t.x.reshape(-1, t.K), t.y.reshape(-1, t.features)
        launch.product(x, t.weight.T, y)
        if t.bias is not None:

            def add_bias(lo, hi):
                y[lo:hi] += t.bias

            launch.rows(len(y), add_bias, grain=grain(len(y), t.features * y.itemsize))

    def backward(self, t, launch):
        x, dy = t.x.reshape(-1, t.K), t.dy.reshape(-1, t.features)
        if t.dx is not None:
            launch.product(dy, t.weight, t.dx.reshape(-1, t.K))
        if t.dweight is not None:
            launch.product(dy.T, x, t.dweight, t.add_dweight)
        if t.dbias is not None:
            self.bias_gradient(t, launch, dy)

    def bias_gradient(self, t, launch, dy):
        columns = max(16, BLOCK // (4 * 64))

        def block(lo, hi, scratch):
            total = t.dbias[lo:hi] if not t.add_dbias else carve(scratch, dy.dtype, (hi - lo,))[0]
            np.add.reduce(dy[:, lo:hi], axis=0, out=total)
            if t.add_dbias:
                t.dbias[lo:hi] += total

        launch.rows(t.features, block, grain=columns, scratch=8 * columns)
