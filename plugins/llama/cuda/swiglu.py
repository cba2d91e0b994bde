"""SwiGLU on CUDA: one element or 16 bytes of each half a thread. Kernels: swiglu.cu."""

from core import Variant, cdiv, i32
from core.kernels.width import defined, width

THREADS = 128


class SwigluNaive(Variant):
    op, name, priority = "swiglu", "naive", 0
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "x"}

    def forward(self, t, launch):
        launch("naive_forward", t.y, t.x, *sizes(t), **over(t, 1))

    def backward(self, t, launch):
        launch("naive_dx", t.dx, t.dy, t.x, i32(t.add_dx), *sizes(t), **over(t, 1))


class SwigluVector(SwigluNaive):
    name, priority = "vector", 10
    examples = [{"x": (3, 2 * 344)}]

    def forward(self, t, launch):
        launch("vector_forward", t.y, t.x, *sizes(t), **over(t, width(t.E // 2, t.x)))

    def backward(self, t, launch):
        launch("vector_dx", t.dx, t.dy, t.x, i32(t.add_dx), *sizes(t), **over(t, width(t.E // 2, t.x)))


def sizes(t):
    return i32(t.rows), i32(t.E // 2)


def over(t, elements):
    """A thread for each `elements` of the result, of rows x E/2."""
    return {
        "grid": cdiv(t.rows * (t.E // 2), THREADS * elements),
        "block": THREADS,
        "define": defined(elements),
    }
