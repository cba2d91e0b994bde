"""Top-k routing, arXiv:2401.04088: for each token the k experts with the largest logits, the best first, with shares.

Shares are the softmax over the chosen, so they sum to 1: share_j = exp(z_j) / sum_i exp(z_i), z the chosen logits. Of
equal logits the first is chosen. The choice has no gradient; of the chosen,
    dz_j = share_j (dshare_j - sum_i share_i dshare_i),  and 0 for all others.
"""

import numpy as np

from core import BuildError, Op, Reference
from core.examples import tied_rows


def settle(dims):
    if not 1 <= dims["k"] <= dims["N"]:
        raise BuildError(f"k = {dims['k']} of {dims['N']} experts; expected 1 to {dims['N']}")


route = Op(
    "route",
    inputs={"logits": "... N"},
    outputs={"share": "... k", "expert": "... k : i32 < N"},
    attrs={"k": int},
    infer=settle,
    examples=[
        {"logits": (2, 7, 8), "k": 2},
        {"logits": (5, 33), "k": 5},
        {"logits": (3, 4), "k": 4},
        {"logits": np.repeat([[-100.0, 99.0, 0.5, 100.0, 0.0]], 3, axis=0), "k": 3},  # where exp overflows
        {"logits": (1, 1), "k": 1},
        {"logits": (3, 1031), "k": 2},  # more experts, then tokens, than any thread block has threads
        {"logits": (1031, 3), "k": 2},
        {"logits": tied_rows(5, 33), "k": 4},
    ],
    doc="Sends each token to its k best experts.",
)


class RouteReference(Reference):
    op = "route"
    reads = ("share", "expert")
    can_add = ("logits",)

    def forward(self, t):
        t.expert[...] = np.argsort(-t.logits, axis=-1, kind="stable")[..., : t.k]
        z = np.take_along_axis(t.logits, t.expert, axis=-1)
        e = np.exp(z - z[..., :1])
        np.divide(e, e.sum(-1, keepdims=True), out=t.share)

    def backward(self, t):
        dlogits = np.zeros((*t.expert.shape[:-1], t.N), t.share.dtype)
        dz = t.share * (t.dshare - np.sum(t.share * t.dshare, axis=-1, keepdims=True))
        np.put_along_axis(dlogits, t.expert, dz, axis=-1)
        t.add("dlogits", dlogits)

    def parts(self, t, tensor, index):
        *row, at = index
        if tensor != "dlogits":
            return {"logits": (*row, slice(None))}
        chosen = dict.fromkeys(("share", "dshare"), (*row, slice(None))) if at in t.expert[(*row,)] else {}
        return {"expert": (*row, slice(None)), **chosen}

    def maps(self, t):
        chosen = np.argsort(-t.logits, axis=-1, kind="stable")[..., : t.k]
        z = np.take_along_axis(t.logits, chosen, axis=-1)
        share = np.zeros_like(t.logits)
        np.put_along_axis(share, chosen, np.exp(z - z[..., :1]), axis=-1)
        return {"shares": share / share.sum(-1, keepdims=True)}
