"""The linear layer with BLAS writing straight into its outputs. Formulas: ../matmul.py."""

import numpy as np

from core import Variant

from .blocks import BLOCK, carve, grain

SLICE = 1 << 21  # bytes of a slice of dweight that is computed beside it before it is added


def weight_gradient(dz, x, dweight, adds, workspace):
    """dweight = dz^T x, or += in slices of rows, since BLAS as NumPy has it only overwrites."""
    if not adds:
        np.matmul(dz.T, x, out=dweight)
        return
    rows = slice_rows(x.shape[1], x.itemsize)
    for lo in range(0, len(dweight), rows):
        part = dweight[lo : lo + rows]
        product = carve(workspace, x.dtype, part.shape)[0]
        np.matmul(dz[:, lo : lo + rows].T, x, out=product)
        part += product


def slice_rows(width, itemsize):
    return max(1, SLICE // (width * itemsize))


class MatmulBlas(Variant):
    op, name, device = "matmul", "blas", "cpu"
    dtypes = ("f32", "f64")
    reads = ("x", "weight")
    examples = [{"x": (2, 31, 601), "features": 1030}]

    def workspace(self, t):
        return max(SLICE, 8 * t.K)  # one row at least

    def forward(self, t, launch):
        x, y = t.x.reshape(-1, t.K), t.y.reshape(-1, t.features)
        launch.call(lambda: np.matmul(x, t.weight.T, out=y))
        if t.bias is not None:

            def add_bias(lo, hi):
                y[lo:hi] += t.bias

            launch.rows(len(y), add_bias, grain=grain(len(y), t.features * y.itemsize))

    def backward(self, t, launch):
        x, dy, workspace = t.x.reshape(-1, t.K), t.dy.reshape(-1, t.features), launch.workspace
        if t.dx is not None:
            launch.call(lambda: np.matmul(dy, t.weight, out=t.dx.reshape(-1, t.K)))
        if t.dweight is not None:
            launch.call(lambda: weight_gradient(dy, x, t.dweight, t.add_dweight, workspace))
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
