"""Learned positions on CUDA: one element or 16 bytes a thread. Kernels: position.cu."""

from core import Variant, cdiv, i32

from .width import width


class PositionNaive(Variant):
    """One element a thread."""

    op, name, priority = "position", "naive", 0
    alias = {"dx": "dy"}
    can_add = ("x",)
    kernels, threads = "naive", 128

    def elements(self, t, tensor):
        """How many elements a thread takes."""
        return 1

    def forward(self, t, launch):
        arguments = (t.y, t.x, t.weight, t.start, i32(t.B), i32(t.T), i32(t.C))
        self.launch(launch, "forward", t.B * t.T * t.C, self.elements(t, t.x), *arguments)

    def backward(self, t, launch):
        sizes, elements = (i32(t.B), i32(t.T), i32(t.C)), self.elements(t, t.dy)
        if t.dx is not None:
            self.launch(launch, "dx", t.B * t.T * t.C, elements, t.dx, t.dy, *sizes, i32(t.add_dx))
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, *sizes, i32(t.length), i32(t.add_dweight))
            self.launch(launch, "dweight", t.length * t.C, elements, *arguments)

    def launch(self, launch, kernel, n, elements, *arguments):
        grid, define = cdiv(n, self.threads * elements), {"WIDTH": elements}
        launch(f"{self.kernels}_{kernel}", *arguments, grid=grid, block=self.threads, define=define)


class PositionVector(PositionNaive):
    """16 bytes a thread: an eighth of the loads and stores in bf16, a quarter in f32."""

    name, priority = "vector", 10
    kernels = "vector"

    def elements(self, t, tensor):
        return width(t.C, tensor)
