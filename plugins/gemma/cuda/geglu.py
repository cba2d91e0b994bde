"""GeGLU on CUDA: one element or 16 bytes of each half a thread. Kernels: geglu.cu."""

from core import Variant, cdiv, i32

from .packs import defined, width

THREADS = 128


class GegluNaive(Variant):
    op, name, priority = "geglu", "naive", 0
    reads = ("x",)
    can_add = ("x",)
    inplace = {"dx": "x"}

    def forward(self, t, launch):
        self.launch(launch, "naive_forward", t, 1, t.y, t.x)

    def backward(self, t, launch):
        self.launch(launch, "naive_dx", t, 1, t.dx, t.dy, t.x, i32(t.add_dx))

    def launch(self, launch, kernel, t, elements, *arguments):
        """A thread for each `elements` of the result, of `rows` x `half`."""
        half = t.E // 2
        grid = cdiv(t.rows * half, THREADS * elements)
        launch(kernel, *arguments, i32(t.rows), i32(half), grid=grid, block=THREADS, define=defined(elements))


class GegluVector(GegluNaive):
    name, priority = "vector", 10
    examples = [{"x": (3, 2 * 344)}]

    def forward(self, t, launch):
        self.launch(launch, "vector_forward", t, width(t.E // 2, t.x), t.y, t.x)

    def backward(self, t, launch):
        self.launch(launch, "vector_dx", t, width(t.E // 2, t.x), t.dx, t.dy, t.x, i32(t.add_dx))
