"""The load-balancing loss of a router, arXiv:2101.03961: N sum_e f_e P_e, the least where all experts have equal loads.

Over a micro-step's tokens, f_e is how often expert e was chosen, per token, and P_e the mean of its probability
p_e = softmax(logits)_e. It is k for N equal loads, and no less. f has no gradient:
    dlogits_i = dloss N / tokens * p_i (f_i - sum_e p_e f_e).
"""

import numpy as np

from core import Op, Reference
from core.examples import far_rows, scaled_rows

balance = Op(
    "balance",
    inputs={"logits": "... N", "expert": "... k : i32 < N"},
    outputs={"loss": ": acc"},
    examples=[
        {"logits": (2, 7, 8), "expert": (2, 7, 2)},
        {"logits": (5, 33), "expert": (5, 3)},
        {"logits": (300, 4), "expert": (300, 1)},
        {"logits": (1, 1), "expert": (1, 1)},
        {"logits": (2, 1031), "expert": (2, 17)},  # more experts, then tokens, than any thread block has threads
        {"logits": (1031, 3), "expert": (1031, 1)},
        {"logits": np.concatenate([far_rows(5), scaled_rows(5)]), "expert": (6, 2)},
    ],
    doc="How unequal the loads of experts are: a term of the loss.",
)


class BalanceReference(Reference):
    op = "balance"
    saved = {"lse": "... : acc", "load": "N : acc"}
    reads = ("logits",)
    can_add = ("logits",)
    made_of = {"loss": "logits expert", "lse": "logits", "load": "expert", "dlogits": "logits(N) lse load(N) dloss"}

    def forward(self, t):
        logits = t.logits.reshape(-1, t.N)
        top = logits.max(-1)
        lse = top + np.log(np.exp(logits - top[:, None]).sum(-1))
        t.lse[...] = lse.reshape(t.lse.shape)
        t.load[...] = np.bincount(t.expert.reshape(-1), minlength=t.N) / t.rows
        t.loss[...] = t.N * np.sum(t.load * np.exp(logits - lse[:, None]).mean(0))

    def backward(self, t):
        p = np.exp(t.logits - t.lse[..., None])
        t.add("dlogits", t.dloss * t.N / t.rows * p * (t.load - (p @ t.load)[..., None]))
