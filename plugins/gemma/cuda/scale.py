"""Elements times a number on CUDA: one element or 16 bytes a thread. Kernels: scale.cu."""

from core import Variant, cdiv, f32, i32, u64
from core.kernels.width import defined, width

THREADS = 128


class ScaleNaive(Variant):
    op, name, priority = "scale", "naive", 0
    can_add = ("x",)
    inplace = {"dx": "dy"}

    def forward(self, t, launch):
        launch("naive_scale", t.y, t.x, *settings(t, False), **over(t, 1))

    def backward(self, t, launch):
        launch("naive_scale", t.dx, t.dy, *settings(t, t.add_dx), **over(t, 1))


class ScaleVector(ScaleNaive):
    name, priority = "vector", 10

    def forward(self, t, launch):
        launch("vector_scale", t.y, t.x, *settings(t, False), **over(t, width(t.x.size, t.x)))

    def backward(self, t, launch):
        launch("vector_scale", t.dx, t.dy, *settings(t, t.add_dx), **over(t, width(t.dy.size, t.dy)))


def settings(t, add):
    return f32(t.by), i32(add), u64(t.rows)


def over(t, elements):
    """A thread for each `elements` of the result."""
    return {"grid": cdiv(t.rows, THREADS * elements), "block": THREADS, "define": defined(elements)}
