"""Learned positions on CUDA: one element or 16 bytes a thread. Kernels: position.cu."""

from core import Variant, cdiv, i32
from core.kernels.width import width

THREADS = 128


class PositionNaive(Variant):
    """One element a thread."""

    op, name, priority = "position", "naive", 0
    alias = {"dx": "dy"}
    can_add = ("x",)

    def forward(self, t, launch):
        launch("naive_forward", t.y, t.x, t.weight, t.start, *sizes(t), **over(t.B * t.T * t.C, 1))

    def backward(self, t, launch):
        if t.dx is not None:
            launch("naive_dx", t.dx, t.dy, *sizes(t), i32(t.add_dx), **over(t.B * t.T * t.C, 1))
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, *sizes(t), i32(t.length), i32(t.add_dweight))
            launch("naive_dweight", *arguments, **over(t.length * t.C, 1))


class PositionVector(PositionNaive):
    """16 bytes a thread: an eighth of the loads and stores in bf16, a quarter in f32."""

    name, priority = "vector", 10

    def forward(self, t, launch):
        wide = width(t.C, t.x)
        launch("vector_forward", t.y, t.x, t.weight, t.start, *sizes(t), **over(t.B * t.T * t.C, wide))

    def backward(self, t, launch):
        wide = width(t.C, t.dy)
        if t.dx is not None:
            launch("vector_dx", t.dx, t.dy, *sizes(t), i32(t.add_dx), **over(t.B * t.T * t.C, wide))
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, *sizes(t), i32(t.length), i32(t.add_dweight))
            launch("vector_dweight", *arguments, **over(t.length * t.C, wide))


def sizes(t):
    return i32(t.B), i32(t.T), i32(t.C)


def over(n, elements):
    """A thread for each `elements` of n results."""
    return {"grid": cdiv(n, THREADS * elements), "block": THREADS, "define": {"WIDTH": elements}}
