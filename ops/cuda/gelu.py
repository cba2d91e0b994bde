"""GELU on CUDA: one element or 16 bytes a thread. Kernels: gelu.cu."""

from core import Variant, cdiv, i32, u64
from core.kernels.width import WIDEST

THREADS = 128


class GeluNaive(Variant):
    """One element a thread."""

    op, name, priority = "gelu", "naive", 0
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "dy"}

    def forward(self, t, launch):
        arguments = (t.y, t.x, u64(t.rows), i32(t.approx == "erf"))
        launch("naive_forward", *arguments, grid=cdiv(t.rows, THREADS), block=THREADS)

    def backward(self, t, launch):
        if t.dx is not None:
            arguments = (t.dx, t.dy, t.x, u64(t.rows), i32(t.approx == "erf"), i32(t.add_dx))
            launch("naive_dx", *arguments, grid=cdiv(t.rows, THREADS), block=THREADS)


class GeluVector(GeluNaive):
    """16 bytes a thread: an eighth of the loads and stores in bf16, a quarter in f32."""

    name, priority = "vector", 10
    examples = [{"x": (3, 1031)}]

    def forward(self, t, launch):
        arguments = (t.y, t.x, u64(t.rows), i32(t.approx == "erf"))
        launch("vector_forward", *arguments, grid=cdiv(t.rows, THREADS * WIDEST[t.x.dtype]), block=THREADS)

    def backward(self, t, launch):
        if t.dx is not None:
            arguments = (t.dx, t.dy, t.x, u64(t.rows), i32(t.approx == "erf"), i32(t.add_dx))
            launch("vector_dx", *arguments, grid=cdiv(t.rows, THREADS * WIDEST[t.x.dtype]), block=THREADS)
