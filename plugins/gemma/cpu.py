"""The op in blocks that stay in cache, over threads. Formula: scale.py."""

import numpy as np

from core import Variant
from core.kernels.blocks import BLOCK


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
