"""Elements times a number on CUDA: one element or 16 bytes a thread. Kernels: scale.cu."""

from core import Variant, cdiv, f32, i32, u64

from .packs import defined, width

THREADS = 128


class ScaleNaive(Variant):
    op, name, priority = "scale", "naive", 0
    can_add = ("x",)
    inplace = {"dx": "dy"}
    kernel = "naive_scale"

    def forward(self, t, launch):
        self.launch(launch, t, t.y, t.x, False)

    def backward(self, t, launch):
        self.launch(launch, t, t.dx, t.dy, t.add_dx)

    def elements(self, x):
        """Those of one thread."""
        return 1

    def launch(self, launch, t, y, x, add):
        each = self.elements(x)
        grid = cdiv(t.rows, THREADS * each)
        launch(self.kernel, y, x, f32(t.by), i32(add), u64(t.rows), grid=grid, block=THREADS, define=defined(each))


class ScaleVector(ScaleNaive):
    name, priority = "vector", 10
    kernel = "vector_scale"

    def elements(self, x):
        return width(x.size, x)
