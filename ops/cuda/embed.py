"""Embedding with learned positions on CUDA. Kernels: embed.cu, and for backward embedding.cu and position.cu."""

from core import Variant, cdiv, i32
from core.kernels.width import width

from .embedding import launch_sorted, sorted_bytes

THREADS = 128


class EmbedVector(Variant):
    """One launch, 16 bytes a thread: the sum of both tables is written once, and nothing in between."""

    op, name = "embed", "vector"
    source = ("embed.cu", "embedding.cu", "position.cu")
    reads = ("ids",)
    partial = ("weight",)
    examples = [{"ids": (3, 41), "rows": 29, "cols": 1032, "length": 60}]  # several slices of columns in each kernel

    def workspace(self, t):
        return sorted_bytes(t)

    def forward(self, t, launch):
        wide = width(t.cols, t.y)
        grid = (t.B * t.T, cdiv(t.cols, wide * THREADS))
        arguments = (t.y, t.ids, t.weight, t.positions, t.start, i32(t.T), i32(t.cols))
        launch("vector_embed", *arguments, grid=grid, block=THREADS, define={"WIDTH": wide})

    def backward(self, t, launch):
        if t.dweight is not None:
            launch_sorted(t, launch)
        if t.dpositions is not None:
            wide = width(t.cols, t.dy)
            numbers = (t.B, t.T, t.cols, t.length, t.add_dpositions)
            how = {"grid": cdiv(t.length * t.cols, THREADS * wide), "block": THREADS, "define": {"WIDTH": wide}}
            launch("vector_dweight", t.dpositions, t.dy, *(i32(n) for n in numbers), **how)
