"""Gradient norm and AdamW in blocks that stay in cache, over threads. Formulas: ../global_norm.py, ../adamw.py.

Both are bound by memory: AdamW reads and writes each array once.
"""

import math

import numpy as np

from core import Variant, stretches
from core.kernels.blocks import carve

from ..global_norm import cuts_of, settle_step

ROW = 8192  # elements of one dot product: few enough that BLAS takes one thread and f32 loses nothing
LEAST = 1e-30  # a sum of squares below this may have lost some that f32 cannot hold
ELEMENTS = 64 * 1024  # of a block: fewer calls a block cost more than L2 gives back


def squares(rows, sums):
    """sums[i] = the sum of rows[i]^2, in the rows' own type; in f64 where the squares leave its range, or are all 0."""
    partial = np.vecdot(rows, rows, dtype=rows.dtype)
    sums[...] = partial
    for i in np.flatnonzero(~((partial > LEAST) & (partial < np.inf))):
        row = rows[i].astype(np.float64)
        sums[i] = np.dot(row, row)


class GlobalNormBlocked(Variant):
    """One dot product a row of 8,192 elements, in their type; the rows' sums are added in f64, in order."""

    op, name, device = "global_norm", "blocked", "cpu"
    dtypes = ("f32", "f64")
    slices = True
    examples = [{"grad": (65 * ROW + 64,), "clip": 0.1}, {"grad": (2 * ROW,), "clip": 0.1}]  # with a rest, and without

    def workspace(self, t):
        return cuts_of(t, ROW)[0][-1] * 8

    def forward(self, t, launch):
        grad, control = t.grad, t.step
        cuts, rank = cuts_of(t, ROW)
        (sums,) = carve(launch.workspace, np.dtype(np.float64), (cuts[-1],))
        own = sums[cuts[rank] : cuts[rank + 1]]
        whole = t.n // ROW
        rows = grad[: whole * ROW].reshape(whole, ROW)

        def dots(lo, hi):
            squares(rows[lo:hi], own[lo:hi])

        def rest():
            squares(grad[None, whole * ROW :], own[whole:])

        if whole:
            launch.rows(whole, dots, grain=64)
        if t.n > whole * ROW:
            launch.call(rest)
        if t.slices is not None and t.slices.gather:
            launch.op(t.slices.gather, part=own, flat=sums, cuts=cuts)
        launch.call(lambda: settle_step(control, float(np.add.reduce(sums)), t.clip))


class AdamWBlocked(Variant):
    """The bias corrections are moved to the scalars: with c = sqrt(1 - beta2^k),
    m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps) = m * c / (1 - beta1^k) / (sqrt(v) + eps * c)."""

    op, name, device = "adamw_update", "blocked", "cpu"
    dtypes = ("f32", "f64")

    def forward(self, t, launch):
        weights = t.param if t.master is None else t.master

        def block(lo, hi, scratch):
            if not t.step.ok:
                return
            for part, decays in stretches(t.group, lo, hi):
                (a,) = carve(scratch, weights.dtype, (part.stop - part.start,))
                decay = t.weight_decay if decays else 0.0
                self.update(t, weights[part], t.grad[part], t.m[part], t.v[part], a, decay)
                if t.master is not None:
                    t.param[part] = weights[part]

        launch.rows(t.n, block, grain=ELEMENTS, scratch=ELEMENTS * weights.itemsize)

    def update(self, t, w, grad, m, v, a, decay):
        lr, scale, correction = t.step.lr * t.lr_factor, t.step.scale, math.sqrt(t.step.correction(t.beta2))
        np.multiply(grad, (1 - t.beta1) * scale, out=a)
        m *= t.beta1
        m += a
        np.multiply(grad, math.sqrt(1 - t.beta2) * scale, out=a)
        a *= a
        v *= t.beta2
        v += a
        np.sqrt(v, out=a)
        a += t.eps * correction
        np.divide(m, a, out=a)
        a *= lr * correction / t.step.correction(t.beta1)
        if decay:
            w *= 1 - lr * decay
        w -= a
