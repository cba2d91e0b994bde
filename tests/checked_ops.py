"""Two small ops with references, a variant, and their registry."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.loader import load_registry
from core.op import Reference, Variant

REAL = load_registry()


class RmsNormReference(Reference):
    op, saved, reads, can_add = "rmsnorm", {"rstd": "... : acc"}, ("x", "weight"), ("x",)

    def forward(self, t: Any) -> None:
        t.rstd[...] = 1 / np.sqrt(np.mean(t.x * t.x, axis=-1) + t.eps)
        t.y[...] = t.x * t.rstd[..., None] * t.weight

    def backward(self, t: Any) -> None:
        n, dn = t.x * t.rstd[..., None], t.dy * t.weight
        t.add("dx", t.rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True)))
        t.add("dweight", (t.dy * n).reshape(-1, t.C).sum(0))


class RmsNormRows(Variant):
    """Rows over threads; the parameter's gradient in one piece."""

    op, name, device, dtypes = "rmsnorm", "rows", "cpu", ("f32", "f64")
    saved, reads = {"rstd": "... : acc"}, ("x", "weight")

    def forward(self, t: Any, launch: Any) -> None:
        x, y, rstd = t.x.reshape(-1, t.C), t.y.reshape(-1, t.C), t.rstd.reshape(-1)

        def rows(lo: int, hi: int) -> None:
            rstd[lo:hi] = 1 / np.sqrt(np.mean(x[lo:hi] ** 2, axis=-1) + t.eps)
            y[lo:hi] = x[lo:hi] * rstd[lo:hi, None] * t.weight

        launch.rows(t.rows, rows, grain=3)

    def backward(self, t: Any, launch: Any) -> None:
        launch.call(lambda: RmsNormReference().backward(t))
