"""split on CUDA: one thread an element of x. Kernels: split.cu."""

from core import Variant, i32, u64

from .concat import over


class SplitNaive(Variant):
    op, name = "split", "naive"
    can_add = ("x",)

    def forward(self, t, launch):
        launch("cut", t.y, t.rest, t.x, u64(t.rows), i32(t.E), i32(t.first), **over(t.rows * t.E))

    def backward(self, t, launch):
        if t.dx is not None:
            sizes = (u64(t.rows), i32(t.E), i32(t.first), i32(t.add_dx))
            launch("rejoin", t.dx, t.dy, t.drest, *sizes, **over(t.rows * t.E))
