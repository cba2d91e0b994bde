"""concat on CUDA: one thread an element. Kernels: concat.cu."""

from core import Variant, cdiv, i32, u64

THREADS = 128


class ConcatNaive(Variant):
    op, name = "concat", "naive"
    can_add = ("a", "b")

    def forward(self, t, launch):
        launch("join", t.y, t.a, t.b, u64(t.rows), i32(t.A), i32(t.B), **over(t.rows * (t.A + t.B)))

    def backward(self, t, launch):
        for out, first, size, add in ((t.da, 0, t.A, t.add_da), (t.db, t.A, t.B, t.add_db)):
            if out is not None:
                sizes = (u64(t.rows), i32(t.A + t.B), i32(first), i32(size), i32(add))
                launch("part", out, t.dy, *sizes, **over(t.rows * size))


def over(elements):
    return {"grid": cdiv(elements, THREADS), "block": THREADS}
