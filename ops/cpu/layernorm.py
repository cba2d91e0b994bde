"""Layernorm in blocks of rows, alone and with the residual sum before it. Formulas: ../layernorm.py.

The parameters' gradients are summed per block, and the blocks' sums in their order, so that bits repeat.
"""

import numpy as np

from core import Variant, cdiv
from core.kernels.blocks import bytes_of, carve, grain


def normalize(x, y, mean, rstd, weight, bias, eps):
    """y = layernorm(x) for a block of rows; y may be x."""
    width = x.shape[1]
    np.add.reduce(x, axis=1, out=mean)
    np.multiply(mean, 1 / width, out=mean)
    np.subtract(x, mean[:, None], out=y)
    np.vecdot(y, y, out=rstd)
    np.multiply(rstd, 1 / width, out=rstd)
    np.add(rstd, eps, out=rstd)
    np.sqrt(rstd, out=rstd)
    np.reciprocal(rstd, out=rstd)
    np.multiply(y, rstd[:, None], out=y)
    np.multiply(y, weight, out=y)
    if bias is not None:
        np.add(y, bias, out=y)


def denormalize(dy, x, mean, rstd, weight, n, g, row, sums):
    """g = layernorm's dx for a block of rows; n, g: scratch like x; row: scratch (rows,).

    sums, None or (2, C): the block's dweight and dbias.
    """
    width = x.shape[1]
    np.subtract(x, mean[:, None], out=n)
    np.multiply(n, rstd[:, None], out=n)
    if sums is not None:
        np.multiply(dy, n, out=g)
        np.add.reduce(g, axis=0, out=sums[0])
        np.add.reduce(dy, axis=0, out=sums[1])
    np.multiply(dy, weight, out=g)
    np.vecdot(g, n, out=row)
    np.multiply(row, 1 / width, out=row)
    np.multiply(n, row[:, None], out=n)
    np.add.reduce(g, axis=1, out=row)
    np.multiply(row, 1 / width, out=row)
    np.subtract(g, row[:, None], out=g)
    np.subtract(g, n, out=g)
    np.multiply(g, rstd[:, None], out=g)


def reduce_sums(t, launch, sums):
    """Write or add the blocks' sums (blocks, 2, C) into dweight and dbias."""

    def finish():
        for i, (gradient, adds) in enumerate(((t.dweight, t.add_dweight), (t.dbias, t.add_dbias))):
            if gradient is None:
                continue
            total = sums[0, i]
            for block in sums[1:, i]:
                total += block
            if adds:
                gradient += total
            else:
                gradient[...] = total

    launch.call(finish)


class _Blocked(Variant):
    device = "cpu"
    dtypes = ("f32", "f64")
    saved = {"mean": "... : acc", "rstd": "... : acc"}

    def workspace(self, t):
        row_bytes = t.weight.nbytes
        return cdiv(t.rows, grain(t.rows, row_bytes)) * 2 * row_bytes

    def differentiate(self, t, launch, x, combine):
        """Run backward over blocks; `combine(lo, hi, g)` writes or adds g, the dx of rows lo..hi."""
        mean, rstd, dy = t.mean.reshape(-1), t.rstd.reshape(-1), t.dy.reshape(x.shape)
        rows, width = x.shape
        size = grain(rows, width * x.itemsize)
        params = t.dweight is not None or t.dbias is not None
        blocks = cdiv(rows, size)
        sums = carve(launch.workspace, x.dtype, (blocks, 2, width))[0] if params else None

        def block(lo, hi, scratch):
            n, g, row = carve(scratch, x.dtype, (hi - lo, width), (hi - lo, width), (hi - lo,))
            own = None if sums is None else sums[lo // size]
            denormalize(dy[lo:hi], x[lo:hi], mean[lo:hi], rstd[lo:hi], t.weight, n, g, row, own)
            combine(lo, hi, g)

        launch.rows(rows, block, grain=size, scratch=bytes_of(x.dtype, (size, width), (size, width), (size,)))
        if params:
            reduce_sums(t, launch, sums)


class LayerNormBlocked(_Blocked):
    op, name = "layernorm", "blocked"
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [{"x": (150, 768)}]

    def forward(self, t, launch):
        x, y, mean, rstd = t.x.reshape(-1, t.C), t.y.reshape(-1, t.C), t.mean.reshape(-1), t.rstd.reshape(-1)

        def block(lo, hi):
            normalize(x[lo:hi], y[lo:hi], mean[lo:hi], rstd[lo:hi], t.weight, t.bias, t.eps)

        launch.rows(len(x), block, grain=grain(len(x), t.C * x.itemsize))

    def backward(self, t, launch):
        dx = None if t.dx is None else t.dx.reshape(-1, t.C)

        def combine(lo, hi, g):
            if dx is None:
                return
            if t.add_dx:
                dx[lo:hi] += g
            else:
                dx[lo:hi] = g

        self.differentiate(t, launch, t.x.reshape(-1, t.C), combine)


class AddLayerNormBlocked(_Blocked):
    """The sum is normalized while its block is in cache; backward adds to the residual gradient in place."""

    op, name = "add_layernorm", "blocked"
    reads = ("s", "weight")
    can_add = ("x", "r")
    alias = {"dr": "dx"}
    inplace = {"dx": "ds"}
    examples = [{"x": (70, 768), "r": (70, 768)}]

    def forward(self, t, launch):
        x, r, s, y = (a.reshape(-1, t.C) for a in (t.x, t.r, t.s, t.y))
        mean, rstd = t.mean.reshape(-1), t.rstd.reshape(-1)

        def block(lo, hi):
            np.add(x[lo:hi], r[lo:hi], out=s[lo:hi])
            normalize(s[lo:hi], y[lo:hi], mean[lo:hi], rstd[lo:hi], t.weight, t.bias, t.eps)

        launch.rows(len(x), block, grain=grain(len(x), t.C * x.itemsize))

    def backward(self, t, launch):
        targets = [(g.reshape(-1, t.C), adds) for g, adds in ((t.dx, t.add_dx), (t.dr, t.add_dr)) if g is not None]
        ds = None if t.ds is None else t.ds.reshape(-1, t.C)

        def combine(lo, hi, g):
            if ds is not None:
                g += ds[lo:hi]
            for target, adds in targets:
                if adds:
                    target[lo:hi] += g
                else:
                    target[lo:hi] = g

        if t.dy is None:
            self.pass_on(t, launch, targets, ds)
        else:
            self.differentiate(t, launch, t.s.reshape(-1, t.C), combine)

    def pass_on(self, t, launch, targets, ds):
        """Without a use of y's gradient, the residual's passes through unchanged and the parameters get none."""

        def finish():
            for target, adds in targets:
                if adds:
                    np.add(target, ds, out=target)
                elif target is not ds:
                    np.copyto(target, ds)
            for gradient, adds in ((t.dweight, t.add_dweight), (t.dbias, t.add_dbias)):
                if gradient is not None and not adds:
                    gradient.fill(0)

        launch.call(finish)
