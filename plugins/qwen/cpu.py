"""qk_norm on the cpu, in blocks of rows that stay in cache, over threads. Formulas: qk_norm.py."""

import numpy as np

from core import Variant, cdiv
from core.kernels.blocks import BLOCK

from .qk_norm import factor, parts


class QkNormBlocked(Variant):
    op, name, device = "qk_norm", "blocked", "cpu"
    dtypes = ("f32", "f64")
    saved = {"rstd": "... queries+keys : acc"}
    reads = ("qkv", "q_weight", "k_weight")
    inplace = {"dqkv": "dy"}
    examples = [{"qkv": (90, 10 * 96), "heads": 6, "kv_heads": 2, "offset": 1.0}]

    def grain(self, t):
        """Rows of a block, a function of the shape alone, so that bits repeat."""
        return max(1, min(t.rows, BLOCK // (t.E * self.item(t))))

    def item(self, t):
        return t.qkv.nbytes // t.qkv.size

    def split(self, t, *packed):
        """The queries' part of each of `packed` and of rstd, then the keys'."""
        columns = np.split(t.rstd.reshape(t.rows, -1), [t.queries], axis=1)
        return list(zip(*(parts(tensor, t)[:2] for tensor in packed), columns, strict=True))

    def forward(self, t, launch):
        (q, k), weights = self.split(t, t.qkv, t.y), (t.q_weight, t.k_weight)
        values, copied = parts(t.qkv, t)[2], parts(t.y, t)[2]

        def block(lo, hi):
            for (x, y, rstd), weight in zip((q, k), weights, strict=True):
                x, y, rstd = x[lo:hi], y[lo:hi], rstd[lo:hi]
                np.vecdot(x, x, out=rstd)
                rstd[...] = 1 / np.sqrt(rstd / x.shape[-1] + t.eps)
                np.multiply(x, rstd[..., None], out=y)
                if weight is not None:
                    y *= factor(weight, t)
            copied[lo:hi] = values[lo:hi]

        launch.rows(t.rows, block, grain=self.grain(t))

    def workspace(self, t):
        return cdiv(t.rows, self.grain(t)) * (t.Q + t.K) * self.item(t)

    def backward(self, t, launch):
        size = self.grain(t)
        sums = launch.workspace.view(t.qkv.dtype).reshape(-1, t.Q + t.K)  # of each block, summed in their order
        dqkv = t.dy if t.dqkv is None else t.dqkv  # without a request for dqkv, nothing of it is written
        q, k = self.split(t, t.qkv, t.dy, dqkv)
        dvalues, copied = parts(t.dy, t)[2], parts(dqkv, t)[2]

        def block(lo, hi, scratch):
            both = scratch.view(t.qkv.dtype)
            for (x, dy, dx, rstd), weight, dweight in (
                (q, t.q_weight, sums[lo // size, : t.Q]),
                (k, t.k_weight, sums[lo // size, t.Q :]),
            ):
                x, dy, dx, rstd = x[lo:hi], dy[lo:hi], dx[lo:hi], rstd[lo:hi, :, None]
                n, g = both[: 2 * x.size].reshape(2, *x.shape)
                np.multiply(x, rstd, out=n)
                np.multiply(dy, n, out=g)
                np.add.reduce(g, axis=(0, 1), out=dweight)
                if t.dqkv is None:
                    continue
                np.multiply(dy, factor(weight, t), out=g)
                n *= np.vecdot(g, n)[..., None] / x.shape[-1]
                g -= n
                np.multiply(g, rstd, out=dx)
            if t.dqkv is not None:
                copied[lo:hi] = dvalues[lo:hi]

        launch.rows(t.rows, block, grain=size, scratch=2 * size * t.E * t.qkv.itemsize)
        if t.q_weight is not None:
            launch.call(lambda: t.add("dq_weight", np.add.reduce(sums[:, : t.Q], axis=0)))
        if t.k_weight is not None:
            launch.call(lambda: t.add("dk_weight", np.add.reduce(sums[:, t.Q :], axis=0)))
