"""Dropout on CUDA: one element, or the four that share a random counter, a thread. Kernels: dropout.cu."""

from core import Variant, cdiv, f32, i32, u32

THREADS = 128


class DropoutNaive(Variant):
    """One element a thread, and four random numbers for each."""

    op, name, priority = "dropout", "naive", 0
    can_add = ("x",)
    inplace = {"dx": "dy"}
    kernel = "naive_apply"

    def threads(self, t):
        """One for each element."""
        return t.rows * t.C

    def forward(self, t, launch):
        self.apply(t, launch, t.y, t.x, False)

    def backward(self, t, launch):
        if t.dx is not None:
            self.apply(t, launch, t.dx, t.dy, t.add_dx)

    def apply(self, t, launch, target, source, add):
        settings = (i32(t.rows), i32(t.C), u32(int(t.p * 2**32)), f32(1 / (1 - t.p)), i32(add))
        launch(self.kernel, target, source, t.key, *settings, grid=cdiv(self.threads(t), THREADS), block=THREADS)


class DropoutVector(DropoutNaive):
    """Four neighbours share a draw of four random numbers: a quarter of the arithmetic."""

    name, priority = "vector", 10
    kernel = "vector_apply"

    def threads(self, t):
        """One for each four neighbours of a row."""
        return t.rows * cdiv(t.C, 4)
