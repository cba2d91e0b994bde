"""Embedding on CUDA; in backward one thread a column, or one warp a row that owns it. Kernels: embedding.cu."""

import math

import numpy as np

from core import Variant, cdiv, i32

from .width import width

THREADS = 128
WARPS = 4


def count(t):
    """How many ids there are; `rows` is the table's."""
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
        {"ids": np.arange(123) % 61, "rows": 61, "cols": 133},  # an id's places lie in different chunks
    ]

    def forward(self, t, launch):
        n, wide = count(t), width(t.cols, t.y)
        grid = (n, cdiv(t.cols, wide * THREADS))
        arguments = (t.y, t.ids, t.weight, i32(n), i32(t.cols))
        launch("owner_forward", *arguments, grid=grid, block=THREADS, define={"WIDTH": wide})

    def backward(self, t, launch):
        if t.dweight is not None:
            launch_dweight(t, launch)


def launch_dweight(t, launch):
    n, wide = count(t), width(t.cols, t.dy)
    grid = (cdiv(n, WARPS), cdiv(t.cols, 32 * wide))
    arguments = (t.dweight, t.ids, t.dy, i32(n), i32(t.cols))
    launch("owner_dweight", *arguments, grid=grid, block=(32, WARPS), define={"WIDTH": wide})
