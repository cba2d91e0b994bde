"""Gated linear units on CUDA: one element or 16 bytes of each half a thread. Kernels: gated.cu."""

from core import Variant, cdiv, i32
from core.kernels.width import defined, width

THREADS = 128
ACTIVATIONS = {"swiglu": {}, "geglu": {"GELU": 1}}  # op -> the macros that its kernels are compiled with


class _GatedNaive(Variant):
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "x"}
    source = "gated.cu"

    def forward(self, t, launch):
        launch("naive_forward", t.y, t.x, *sizes(t), **over(t, 1, self.op))

    def backward(self, t, launch):
        launch("naive_dx", t.dx, t.dy, t.x, i32(t.add_dx), *sizes(t), **over(t, 1, self.op))


class _GatedVector(_GatedNaive):
    examples = [{"x": (3, 2 * 344)}]

    def forward(self, t, launch):
        launch("vector_forward", t.y, t.x, *sizes(t), **over(t, width(t.E // 2, t.x), self.op))

    def backward(self, t, launch):
        arguments = (t.dx, t.dy, t.x, i32(t.add_dx), *sizes(t))
        launch("vector_dx", *arguments, **over(t, width(t.E // 2, t.x), self.op))


class SwigluNaive(_GatedNaive):
    op, name, priority = "swiglu", "naive", 0


class GegluNaive(_GatedNaive):
    op, name, priority = "geglu", "naive", 0


class SwigluVector(_GatedVector):
    op, name, priority = "swiglu", "vector", 10


class GegluVector(_GatedVector):
    op, name, priority = "geglu", "vector", 10


def sizes(t):
    return i32(t.rows), i32(t.E // 2)


def over(t, elements, op):
    """A thread for each `elements` of the result, of rows x E/2."""
    return {
        "grid": cdiv(t.rows * (t.E // 2), THREADS * elements),
        "block": THREADS,
        "define": defined(elements) | ACTIVATIONS[op],
    }
