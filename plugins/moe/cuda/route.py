"""The choice of experts on CUDA: one thread a token. Kernels: route.cu."""

from core import Variant, cdiv, i32

THREADS = 64


class RouteNaive(Variant):
    op, name, priority = "route", "naive", 0
    reads = ("share", "expert")
    can_add = ("logits",)
    examples = [{"logits": (67, 130), "k": 2}]  # two thread blocks; enough experts to show a swapped number

    def forward(self, t, launch):
        launch("naive_forward", t.share, t.expert, t.logits, *self.sizes(t), **self.by_row(t))

    def backward(self, t, launch):
        arguments = (t.dlogits, t.dshare, t.share, t.expert, i32(t.add_dlogits))
        launch("naive_dx", *arguments, *self.sizes(t), **self.by_row(t))

    def sizes(self, t):
        return i32(t.rows), i32(t.N), i32(t.k)

    def by_row(self, t):
        return {"grid": cdiv(t.rows, THREADS), "block": THREADS}
