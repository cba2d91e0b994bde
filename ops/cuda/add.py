"""Sum of two values on CUDA: one element or 16 bytes a thread. Kernels: add.cu."""

from core import Variant, cdiv, i32, u64

from .width import WIDEST


class AddNaive(Variant):
    """One element a thread."""

    op, name, priority = "add", "naive", 0
    can_add = ("a", "b")
    alias = {"da": "dy", "db": "dy"}
    kernels, threads = "naive", 128

    def elements(self, t):
        """How many elements a thread takes."""
        return 1

    def forward(self, t, launch):
        grid = cdiv(t.rows, self.threads * self.elements(t))
        launch(f"{self.kernels}_forward", t.y, t.a, t.b, u64(t.rows), grid=grid, block=self.threads)

    def backward(self, t, launch):
        grid = cdiv(t.rows, self.threads * self.elements(t))
        for gradient, add in ((t.da, t.add_da), (t.db, t.add_db)):
            if gradient is not None:
                launch(f"{self.kernels}_pass", gradient, t.dy, u64(t.rows), i32(add), grid=grid, block=self.threads)


class AddVector(AddNaive):
    """16 bytes a thread: an eighth of the loads and stores in bf16, a quarter in f32."""

    name, priority = "vector", 10
    kernels = "vector"
    examples = [{"a": (3, 1031), "b": (3, 1031)}]

    def elements(self, t):
        return WIDEST[t.dy.dtype if "dy" in vars(t) else t.y.dtype]
