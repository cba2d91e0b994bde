"""One head of causal attention: p = softmax(mask(q k^T / sqrt(D))), y = p v. The forward of training is done. The
backward is yours, and so is decoding, where k and v of earlier tokens come from a cache."""

import numpy as np

from core import Op, Reference

attend = Op(
    "attend",
    inputs={"q": "B T D", "k": "B T D", "v": "B T D"},
    outputs={"y": "B T D"},
    uses=("start",),
    state={"keys": "B S D", "values": "B S D"},
    examples=[
        {"q": (2, 5, 4), "k": (2, 5, 4), "v": (2, 5, 4)},
        {"q": (1, 7, 3), "k": (1, 7, 3), "v": (1, 7, 3)},
        {"q": (1, 1, 3), "k": (1, 1, 3), "v": (1, 1, 3)},
    ],
)


def weights(q, k, first=0):
    """p, a row for each query; query i stands at position first + i and sees the keys up to its own."""
    s = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    i, j = first + np.arange(s.shape[-2])[:, None], np.arange(s.shape[-1])
    s = np.where(j <= i, s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


class AttendReference(Reference):
    op, reads = "attend", ("q", "k", "v")

    def forward(self, t):
        if t.start is None:
            t.y[...] = weights(t.q, t.k) @ t.v
            return
        for b, start in enumerate(t.start.tolist()):  # decoding: row b has `start` tokens in its cache, and T new ones
            end = start + t.T
            #[ put t.k[b] and t.v[b] into the cache t.keys[b], t.values[b]; then t.y[b] from all `end` tokens
            t.keys[b, start:end], t.values[b, start:end] = t.k[b], t.v[b]
            t.y[b] = weights(t.q[b], t.keys[b, :end], start) @ t.values[b, :end]
            #]

    def backward(self, t):
        p = weights(t.q, t.k)
        #[ dv, dp, ds, and then dq and dk: t.add each of dv, dq and dk
        dp = t.dy @ t.v.swapaxes(-1, -2)
        ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / np.sqrt(t.D)
        t.add("dv", p.swapaxes(-1, -2) @ t.dy)
        t.add("dq", ds @ t.k)
        t.add("dk", ds.swapaxes(-1, -2) @ t.q)
        #]


def core_ops():
    return [attend]


def core_variants():
    return [AttendReference]
