"""The weighted sum of expert outputs on CUDA: one element or 16 bytes a thread. Kernels: combine.cu."""

from core import Variant, cdiv, i32
from core.kernels.width import WIDEST

THREADS = 128
WARPS = 4  # shares of a thread block


class CombineNaive(Variant):
    op, name, priority = "combine", "naive", 0
    reads = ("x", "share")
    can_add = ("x", "share")
    examples = [{"x": (67, 2, 3), "share": (67, 2)}]  # two thread blocks of shares

    def forward(self, t, launch):
        launch("naive_forward", t.y, t.x, t.share, *sizes(t), grid=cdiv(t.rows * t.C, THREADS), block=THREADS)

    def backward(self, t, launch):
        if t.dx is not None:
            arguments = (t.dx, t.dy, t.share, i32(t.add_dx), *sizes(t))
            launch("naive_dx", *arguments, grid=cdiv(t.rows * t.C, THREADS), block=THREADS)
        if t.dshare is not None:
            arguments = (t.dshare, t.dy, t.x, i32(t.add_dshare), *sizes(t))
            launch("naive_dshare", *arguments, grid=cdiv(t.rows * t.k, THREADS), block=THREADS)


class CombineVector(Variant):
    op, name = "combine", "vector"
    reads = ("x", "share")
    can_add = ("x", "share")
    examples = [{"x": (3, 2, 264), "share": (3, 2)}]  # rows of more than a warp loads at once

    def forward(self, t, launch):
        launch("vector_forward", t.y, t.x, t.share, *sizes(t), **self.by_pack(t))

    def backward(self, t, launch):
        if t.dx is not None:
            launch("vector_dx", t.dx, t.dy, t.share, i32(t.add_dx), *sizes(t), **self.by_pack(t))
        if t.dshare is not None:
            arguments = (t.dshare, t.dy, t.x, i32(t.add_dshare), *sizes(t))
            by_share = {"grid": cdiv(t.rows * t.k, WARPS), "block": (32, WARPS)}
            launch("vector_dshare", *arguments, **by_share, define=self.define(t))

    def by_pack(self, t):
        define = self.define(t)
        return {"grid": cdiv(t.rows * t.C, THREADS * define.get("WIDTH", 1)), "block": THREADS, "define": define}

    def define(self, t):
        widest = WIDEST[t.x.dtype]
        return {"WIDTH": widest} if t.C % widest == 0 else {}


def sizes(t):
    return i32(t.rows), i32(t.k), i32(t.C)
