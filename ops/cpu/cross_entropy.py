"""Cross-entropy row by row, and the head with its loss in chunks of rows. Formulas: ../cross_entropy.py.

A row of logits stays in cache from its maximum to its gradient. In `head_loss`, logits and their gradient share one
chunk of workspace.
"""

from functools import partial

import numpy as np

from core import Variant
from core.kernels.blocks import carve

CHUNK = 2048  # rows of logits at a time in `head_loss`


def row_loss(z, target, out):
    """Loss and lse of one row; `out` (like z) is left holding exp(z - max). Returns (loss, lse, sum of out)."""
    top = z.max()
    np.subtract(z, top, out=out)
    picked = float(out[target]) if target >= 0 else 0.0
    np.exp(out, out=out)
    total = float(np.add.reduce(out))
    log = float(np.log(total))
    return (log - picked if target >= 0 else 0.0), float(top) + log, total


def row_gradient(e, total, target, seed):
    """e, which holds exp(z - max), becomes seed * (softmax - [target])."""
    if target < 0:
        e.fill(0)
        return
    e *= seed / total
    e[target] -= seed


class CrossEntropyBlocked(Variant):
    op, name, device = "cross_entropy", "blocked", "cpu"
    dtypes = ("f32", "f64")
    saved = {"lse": "... : acc"}
    reads = ("logits", "targets")
    inplace = {"dlogits": "logits"}
    examples = [{"logits": (9, 300), "targets": (9,), "classes": 259}]

    def forward(self, t, launch):
        logits, targets = t.logits.reshape(-1, t.P), t.targets.reshape(-1)
        loss, lse, classes = t.loss.reshape(-1), t.lse.reshape(-1), t.classes

        def rows(lo, hi, scratch):
            (e,) = carve(scratch, logits.dtype, (classes,))
            for i in range(lo, hi):
                loss[i], lse[i], _ = row_loss(logits[i, :classes], int(targets[i]), e)

        launch.rows(len(logits), rows, grain=4, scratch=classes * logits.itemsize)

    def backward(self, t, launch):
        if t.dlogits is None:
            return
        logits, targets, dlogits = t.logits.reshape(-1, t.P), t.targets.reshape(-1), t.dlogits.reshape(-1, t.P)
        seeds, lse, classes = t.dloss.reshape(-1), t.lse.reshape(-1), t.classes

        def rows(lo, hi):
            for i in range(lo, hi):
                g = dlogits[i, :classes]
                np.subtract(logits[i, :classes], lse[i], out=g)
                np.exp(g, out=g)
                row_gradient(g, 1.0, int(targets[i]), float(seeds[i]))
                dlogits[i, classes:] = 0

        launch.rows(len(logits), rows, grain=4)


class HeadLossChunked(Variant):
    op, name, device = "head_loss", "chunked", "cpu"
    dtypes = ("f32", "f64")
    reads = ("x", "weight", "targets")
    examples = [{"x": (9, 600), "targets": (9,), "features": 1030, "classes": 1025, "chunk": 4}]

    def workspace(self, t):
        item = t.weight.nbytes // t.weight.size
        return item * min(t.rows, t.chunk or CHUNK) * t.features

    def forward(self, t, launch):
        for rows, z in self.chunks(t, launch):
            launch.product(t.x.reshape(-1, t.K)[rows], t.weight.T, z)
            launch_losses(launch, z[:, : t.classes], t.targets.reshape(-1)[rows], t.loss.reshape(-1)[rows], None)

    def forward_backward(self, t, launch):
        self.differentiate(t, launch, t.loss.reshape(-1))

    def backward(self, t, launch):
        """Compute the logits again, where loss and gradients are not made in one pass."""
        self.differentiate(t, launch, None)

    def chunks(self, t, launch):
        """(rows, logits) of each chunk; all chunks share the memory."""
        chunk = t.chunk or CHUNK
        for lo in range(0, t.rows, chunk):
            rows = slice(lo, min(lo + chunk, t.rows))
            (z,) = carve(launch.workspace, t.weight.dtype, (rows.stop - lo, t.features))
            yield rows, z

    def differentiate(self, t, launch, loss):
        x, targets, seeds = t.x.reshape(-1, t.K), t.targets.reshape(-1), t.dloss.reshape(-1)
        dx = None if t.dx is None else t.dx.reshape(-1, t.K)
        for rows, z in self.chunks(t, launch):
            launch.product(x[rows], t.weight.T, z)
            launch_losses(launch, z[:, : t.classes], targets[rows], None if loss is None else loss[rows], seeds[rows])
            if t.features > t.classes:
                launch.call(partial(z[:, t.classes :].fill, 0))
            if dx is not None:
                launch.product(z, t.weight, dx[rows])
            if t.dweight is not None:
                launch.product(z.T, x[rows], t.dweight, t.add_dweight or rows.start > 0)


def launch_losses(launch, z, targets, loss, seeds):
    """Losses of rows of logits, if `loss` is an array; with `seeds`, z becomes the gradient of seeds . losses."""

    def rows(lo, hi):
        for i in range(lo, hi):
            target = int(targets[i])
            value, _, total = row_loss(z[i], target, z[i])
            if loss is not None:
                loss[i] = value
            if seeds is not None:
                row_gradient(z[i], total, target, float(seeds[i]))

    launch.rows(len(z), rows, grain=4)
