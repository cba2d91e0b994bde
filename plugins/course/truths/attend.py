"""The truth of puzzle e05: one head of causal attention by loops."""

import numpy as np

from core import Op, Reference

attend_truth = Op(
    "attend_truth",
    inputs={"q": "B T D", "k": "B T D", "v": "B T D"},
    outputs={"y": "B T D"},
    examples=[{"q": (1, 3, 2), "k": (1, 3, 2), "v": (1, 3, 2)}],
)


class AttendTruthReference(Reference):
    op, reads = "attend_truth", ("q", "k", "v")

    def forward(self, t):
        for b, i in np.ndindex(t.B, t.T):
            t.y[b, i] = self.share(t, b, i) @ t.v[b, : i + 1]

    def backward(self, t):
        dq, dk, dv = np.zeros((3, *t.q.shape), t.q.dtype)
        for b, i in np.ndindex(t.B, t.T):
            share, seen = self.share(t, b, i), np.s_[b, : i + 1]
            dshare = t.v[seen] @ t.dy[b, i]
            ds = share * (dshare - share @ dshare) / t.D**0.5
            dq[b, i] = ds @ t.k[seen]
            dk[seen] += ds[:, None] * t.q[b, i]
            dv[seen] += share[:, None] * t.dy[b, i]
        t.add("dq", dq), t.add("dk", dk), t.add("dv", dv)

    @staticmethod
    def share(t, b, i):
        """The shares of query i in the keys up to its own: (i + 1,)."""
        e = np.exp(t.k[b, : i + 1] @ t.q[b, i] / t.D**0.5)
        return e / e.sum()


def core_ops():
    return [attend_truth]


def core_variants():
    return [AttendTruthReference]
