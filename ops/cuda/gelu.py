"""GELU on CUDA: one element or 16 bytes a thread. Kernels: gelu.cu."""

from core import Variant, cdiv, i32, u64

from .width import WIDEST


class GeluNaive(Variant):
    """One element a thread."""

    op, name, priority = "gelu", "naive", 0
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "dy"}
    kernels, threads = "naive", 128

    def elements(self, t):
        """How many elements a thread takes."""
        return 1

    def forward(self, t, launch):
        grid = cdiv(t.rows, self.threads * self.elements(t))
        arguments = (t.y, t.x, u64(t.rows), i32(t.approx == "erf"))
        launch(f"{self.kernels}_forward", *arguments, grid=grid, block=self.threads)

    def backward(self, t, launch):
        if t.dx is not None:
            grid = cdiv(t.rows, self.threads * self.elements(t))
            arguments = (t.dx, t.dy, t.x, u64(t.rows), i32(t.approx == "erf"), i32(t.add_dx))
            launch(f"{self.kernels}_dx", *arguments, grid=grid, block=self.threads)


class GeluVector(GeluNaive):
    """16 bytes a thread: an eighth of the loads and stores in bf16, a quarter in f32."""

    name, priority = "vector", 10
    kernels = "vector"
    examples = [{"x": (3, 1031)}]

    def elements(self, t):
        return WIDEST[t.x.dtype]
