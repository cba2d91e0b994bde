"""Sum of two values on CUDA: one element or 16 bytes a thread. Kernels: add.cu."""

from core import Variant, cdiv, i32, u64
from core.kernels.width import WIDEST

THREADS = 128


class AddNaive(Variant):
    """One element a thread."""

    op, name, priority = "add", "naive", 0
    can_add = ("a", "b")
    alias = {"da": "dy", "db": "dy"}

    def forward(self, t, launch):
        launch("naive_forward", t.y, t.a, t.b, u64(t.rows), grid=cdiv(t.rows, THREADS), block=THREADS)

    def backward(self, t, launch):
        for gradient, add in wanted(t):
            launch("naive_pass", gradient, t.dy, u64(t.rows), i32(add), grid=cdiv(t.rows, THREADS), block=THREADS)


class AddVector(AddNaive):
    """16 bytes a thread: an eighth of the loads and stores in bf16, a quarter in f32."""

    name, priority = "vector", 10
    examples = [{"a": (3, 1031), "b": (3, 1031)}]

    def forward(self, t, launch):
        grid = cdiv(t.rows, THREADS * WIDEST[t.y.dtype])
        launch("vector_forward", t.y, t.a, t.b, u64(t.rows), grid=grid, block=THREADS)

    def backward(self, t, launch):
        grid = cdiv(t.rows, THREADS * WIDEST[t.dy.dtype])
        for gradient, add in wanted(t):
            launch("vector_pass", gradient, t.dy, u64(t.rows), i32(add), grid=grid, block=THREADS)


def wanted(t):
    """(gradient, whether it is added to) of each input that needs one."""
    return [(d, add) for d, add in ((t.da, t.add_da), (t.db, t.add_db)) if d is not None]
