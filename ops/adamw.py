"""AdamW, arXiv:1711.05101: decoupled weight decay, bias-corrected moments.

With g = scale * grad and k the number of updates done, this one included:
    m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
    param -= lr * (m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps) + weight_decay * param)
with lr = lr_factor times the learning rate of the step.
`master`, where there is one, holds the weights in full precision, and param is its rounding.
"""

import numpy as np

from core import Op, Optimizer, Reference

adamw_update = Op(
    "adamw_update",
    inputs={"param": "n", **dict.fromkeys(("grad", "m", "v", "master?"), "n : acc"), "group": "cdiv(n,64) : u8"},
    attrs={"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "lr_factor": 1.0},
    uses=("step",),
    gradient=False,
    mutates=("param", "m", "v", "master"),
    examples=[
        # a tail that trains, elements that do not, weights that do not decay
        {"param": (191,), "grad": (191,), "m": (191,), "v": (191,), "group": np.array([3, 1, 2], np.uint8), "eps": 0.1},
        {"param": (64 * 1031,), "grad": (64 * 1031,), "m": (64 * 1031,), "v": (64 * 1031,), "group": (1031,)},
        {"param": (64,), "grad": (64,), "m": (64,), "v": (64,), "master": (64,), "group": (1,), "weight_decay": 0.0},
        {"param": (64,), "grad": (64,), "m": (64,), "v": (64,), "group": (1,), "lr_factor": 0.3},
    ],
    doc="One AdamW update of all parameters.",
)


class AdamWUpdateReference(Reference):
    op = "adamw_update"

    def forward(self, t):
        if not t.step.ok:
            return
        weights = t.param if t.master is None else t.master
        g = t.grad * t.step.scale
        m = t.beta1 * t.m + (1 - t.beta1) * g
        v = t.beta2 * t.v + (1 - t.beta2) * g * g
        change = (m / t.step.correction(t.beta1)) / (np.sqrt(v / t.step.correction(t.beta2)) + t.eps)
        weights = weights - t.step.lr * t.lr_factor * (change + np.where(t.decays, t.weight_decay * weights, 0))
        for old, new in ((t.m, m), (t.v, v), (t.param, weights), (t.master, weights)):
            if old is not None:
                np.copyto(old, new, where=t.trains, casting="same_kind")

    def parts(self, t, tensor, index):
        own = {tensor: index, "group": (index[0] // 64,)}
        if not t.trains[index]:
            return own
        if tensor in ("m", "v"):
            return {**own, "grad": index}
        weights = "param" if t.master is None else "master"
        return {"group": own["group"], **dict.fromkeys((weights, "grad", "m", "v"), index)}


class AdamW(Optimizer):
    """Adam with decoupled weight decay, the optimizer of GPT-2 reproductions."""

    name, groups = "adamw", True
    options = {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
    below = {"betas": 1.0}
    state = {"m": "n : acc", "v": "n : acc"}

    def step(self, p, launch):
        launch.op("global_norm", grad=p.grad, step=p.control, clip=p.clip)
        own = {"beta1": p.betas[0], "beta2": p.betas[1], "eps": p.eps}
        for one in p.groups:
            launch.op("adamw_update", **one.flat, **own, weight_decay=one.weight_decay)
