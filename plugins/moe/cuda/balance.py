"""The load-balancing loss on CUDA. Kernels: balance.cu."""

from core import Variant, cdiv, i32

THREADS = 64


class BalanceNaive(Variant):
    op, name, priority = "balance", "naive", 0
    saved = {"lse": "... : acc", "load": "N : acc"}
    reads = ("logits",)
    can_add = ("logits",)
    examples = [{"logits": (3, 40), "expert": (3, 2)}]  # more experts than a warp has lanes

    def workspace(self, t):
        return 4 * t.N  # mean probabilities

    def forward(self, t, launch):
        mean = launch.workspace
        launch("naive_lse", t.lse, t.logits, i32(t.rows), i32(t.N), **self.by_row(t))
        arguments = (t.load, mean, t.logits, t.lse, t.expert, i32(t.rows), i32(t.N), i32(t.k))
        launch("naive_load", *arguments, grid=t.N, block=128)
        launch("naive_loss", t.loss, t.load, mean, i32(t.N), grid=1, block=32)

    def backward(self, t, launch):
        arguments = (t.dlogits, t.dloss, t.logits, t.lse, t.load, i32(t.add_dlogits), i32(t.rows), i32(t.N))
        launch("naive_dx", *arguments, **self.by_row(t))

    def by_row(self, t):
        return {"grid": cdiv(t.rows, THREADS), "block": THREADS}
