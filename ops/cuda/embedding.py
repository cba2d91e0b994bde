"""Embedding on CUDA; in backward one thread a column, one warp a row, or one warp for 32 places sorted by row.
Kernels: embedding.cu.
"""

import math

import numpy as np

from core import Variant, cdiv, i32
from core.kernels.width import width

THREADS = 128
WARPS = 4
PIECE = 32  # sorted places of a warp


def count(t):
    """The number of ids; `rows` is the table's."""
    return math.prod(t.ids.shape)


class EmbeddingNaive(Variant):
    """Backward: a thread for each column, which walks the whole batch."""

    op, name, priority = "embedding", "naive", 0
    reads = ("ids",)
    partial = ("weight",)
    examples = [{"ids": (5,), "rows": 3, "cols": THREADS + 5}]  # two thread blocks of columns

    def forward(self, t, launch):
        n = count(t)
        grid = (n, cdiv(t.cols, THREADS))
        launch("naive_forward", t.y, t.ids, t.weight, i32(n), i32(t.cols), grid=grid, block=THREADS)

    def backward(self, t, launch):
        if t.dweight is not None:
            arguments = (t.dweight, t.ids, t.dy, i32(count(t)), i32(t.cols))
            launch("naive_dweight", *arguments, grid=cdiv(t.cols, THREADS), block=THREADS)


class EmbeddingOwner(Variant):
    """Backward: a warp for each row that occurs, all of them at once; each looks for its own places in the batch."""

    op, name = "embedding", "owner"
    reads = ("ids",)
    partial = ("weight",)
    examples = [
        {"ids": (3, 41), "rows": 29, "cols": 264},  # four chunks of places, two slices of columns
        {"ids": np.arange(123) % 61, "rows": 61, "cols": 133},  # an id's places are in different chunks
    ]

    def forward(self, t, launch):
        n, wide = count(t), width(t.cols, t.y)
        grid = (n, cdiv(t.cols, wide * THREADS))
        arguments = (t.y, t.ids, t.weight, i32(n), i32(t.cols))
        launch("owner_forward", *arguments, grid=grid, block=THREADS, define={"WIDTH": wide})

    def backward(self, t, launch):
        if t.dweight is not None:
            n, wide = count(t), width(t.cols, t.dy)
            grid = (cdiv(n, WARPS), cdiv(t.cols, 32 * wide))
            arguments = (t.dweight, t.ids, t.dy, i32(n), i32(t.cols))
            launch("owner_dweight", *arguments, grid=grid, block=(32, WARPS), define={"WIDTH": wide})


class EmbeddingSorted(EmbeddingOwner):
    """Backward: places are sorted by id first, so that nothing is searched, and an id of many places has many warps."""

    name, priority = "sorted", 20
    examples = [
        {"ids": (3, 41), "rows": 29, "cols": 264},  # four pieces, two slices of columns
        {"ids": np.arange(35) % 7, "rows": 7, "cols": 133},  # two thread blocks of columns forward
        {"ids": np.arange(1100) % 3 * 150, "rows": 301, "cols": 3},  # two passes, two rounds; rows of many pieces
    ]

    def workspace(self, t):
        return sorted_bytes(t)

    def backward(self, t, launch):
        if t.dweight is not None:
            launch_sorted(t, launch)


def launch_sorted(t, launch):
    """dweight of t.ids and t.dy, over `sorted_bytes` of workspace."""
    n, wide = count(t), width(t.cols, t.dy)
    order, spare = (launch.workspace.part(i * places_bytes(t), (n,), "u32") for i in range(2))
    edges = launch.workspace.part(2 * places_bytes(t), (cdiv(n, PIECE), 2, t.cols), "f32")
    passes = cdiv(max(t.rows - 1, 1).bit_length(), 8)
    launch("sorted_places", order, spare, t.ids, i32(n), i32(passes), grid=1, block=1024 if n > 256 else 256)
    how = {"grid": (cdiv(n, PIECE * WARPS), cdiv(t.cols, 32 * wide)), "block": (32, WARPS), "define": {"WIDTH": wide}}
    launch("sorted_sums", t.dweight, edges, order, t.ids, t.dy, i32(n), i32(t.cols), **how)
    launch("sorted_edges", t.dweight, edges, order, t.ids, i32(n), i32(t.cols), **how)


def sorted_bytes(t):
    """Workspace of `launch_sorted`: the places twice, and two rows' sums for each piece of them."""
    return 2 * places_bytes(t) + 8 * cdiv(count(t), PIECE) * t.cols


def places_bytes(t):
    return cdiv(4 * count(t), 256) * 256
