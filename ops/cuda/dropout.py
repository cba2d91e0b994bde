"""Dropout on CUDA: one element, or the four that share a random counter, a thread. Kernels: dropout.cu."""

from core import Variant, cdiv, f32, i32, u32

THREADS = 128


class DropoutNaive(Variant):
    """One element a thread, and four random numbers for each."""

    op, name, priority = "dropout", "naive", 0
    can_add = ("x",)
    inplace = {"dx": "dy"}

    def forward(self, t, launch):
        launch("naive_apply", t.y, t.x, t.key, *settings(t, False), **over(t.rows * t.C))

    def backward(self, t, launch):
        if t.dx is not None:
            launch("naive_apply", t.dx, t.dy, t.key, *settings(t, t.add_dx), **over(t.rows * t.C))


class DropoutVector(DropoutNaive):
    """Four neighbours of a row share a draw of four random numbers: a quarter of the arithmetic."""

    name, priority = "vector", 10

    def forward(self, t, launch):
        launch("vector_apply", t.y, t.x, t.key, *settings(t, False), **over(t.rows * cdiv(t.C, 4)))

    def backward(self, t, launch):
        if t.dx is not None:
            launch("vector_apply", t.dx, t.dy, t.key, *settings(t, t.add_dx), **over(t.rows * cdiv(t.C, 4)))


def settings(t, add):
    return i32(t.rows), i32(t.C), u32(int(t.p * 2**32)), f32(1 / (1 - t.p)), i32(add)


def over(threads):
    return {"grid": cdiv(threads, THREADS), "block": THREADS}
