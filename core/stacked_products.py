"""`core.product`: matrix products of stacks, over the threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.products import Array, Product


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """The matrix product a b as by `np.matmul`, over the threads; within a piece of work, on its thread.

    a: (..., I, K), b: (..., K, J), out: (..., I, J), all f32 or f64; leading dims broadcast. ValueError from NumPy for
    shapes that do not match.
    """
    if a.ndim < 2 or b.ndim < 2:
        return np.matmul(a, b, out=out)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if out is None:
        out = np.empty((*lead, a.shape[-2], b.shape[-1]), np.result_type(a, b))
    for one in _matrices(a, b, out):
        Product(*one)()
    return out


def _matrices(a: Array, b: Array, out: Array) -> Iterator[tuple[Array, Array, Array]]:
    """The products of matrices that a product of stacks is made of."""
    lead = out.shape[:-2]
    a, b = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
    for index in np.ndindex(lead):
        yield a[index], b[index], out[index]
