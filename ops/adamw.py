"""AdamW, arXiv:1711.05101: decoupled weight decay, bias-corrected moments.

With g = scale * grad and k the number of updates done, this one included:
    m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
    param -= lr * (m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps) + weight_decay * param)
`group` has one byte for each 64 elements: bit 0, weight decay applies; bit 1, the elements are trained at all.
`master`, where there is one, holds the weights in full precision, and param is its rounding.
"""

import numpy as np

from core import SLOT, BuildError, Op, Optimizer, Reference

DECAYS, TRAINS = 1, 2  # bits of `group`
BLOCK = 64  # elements a byte of `group` stands for


def covers(dims):
    if dims["g"] * BLOCK < dims["n"]:
        raise BuildError(f"group has {dims['g']} bytes for {dims['n']} elements; expected one for each {BLOCK}")


adamw_update = Op(
    "adamw_update",
    inputs={"param": "n", "grad": "n : acc", "m": "n : acc", "v": "n : acc", "master?": "n : acc", "group": "g : u8"},
    attrs={"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1},
    infer=covers,
    uses=("step",),
    gradient=False,
    mutates=("param", "m", "v", "master"),
    examples=[
        # a tail that trains, elements that do not, weights that do not decay
        {"param": (191,), "grad": (191,), "m": (191,), "v": (191,), "group": np.array([3, 1, 2], np.uint8), "eps": 0.1},
        {"param": (64 * 1031,), "grad": (64 * 1031,), "m": (64 * 1031,), "v": (64 * 1031,), "group": (1031,)},
        {"param": (64,), "grad": (64,), "m": (64,), "v": (64,), "master": (64,), "group": (1,), "weight_decay": 0.0},
    ],
    doc="One AdamW update of all parameters.",
)


class AdamWUpdateReference(Reference):
    op = "adamw_update"

    def forward(self, t):
        lr, step, scale, ok = (float(t.step[SLOT[name]]) for name in ("lr", "step", "scale", "ok"))
        if not ok:
            return
        bits = np.repeat(t.group, BLOCK)[: t.n]
        trains = (bits & TRAINS) != 0
        weights = t.param if t.master is None else t.master
        g = t.grad * scale
        m = t.beta1 * t.m + (1 - t.beta1) * g
        v = t.beta2 * t.v + (1 - t.beta2) * g * g
        change = (m / (1 - t.beta1**step)) / (np.sqrt(v / (1 - t.beta2**step)) + t.eps)
        decay = np.where(bits & DECAYS, t.weight_decay * weights, 0)
        np.copyto(t.m, m, where=trains)
        np.copyto(t.v, v, where=trains)
        np.copyto(weights, weights - lr * (change + decay), where=trains)
        if t.master is not None:
            np.copyto(t.param, weights, where=trains, casting="same_kind")


class AdamW(Optimizer):
    """Adam with decoupled weight decay: what GPT-2 reproductions train with."""

    name = "adamw"
    options = {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
    below = {"betas": 1.0}
    state = {"m": "n : acc", "v": "n : acc"}

    def step(self, p, launch):
        beta1, beta2 = p.betas
        launch.op("global_norm", grad=p.grad, step=p.control, clip=p.clip)
        launch.op(
            "adamw_update",
            param=p.param,
            grad=p.grad,
            m=p.m,
            v=p.v,
            master=p.master,
            group=p.group,
            step=p.control,
            beta1=beta1,
            beta2=beta2,
            eps=p.eps,
            weight_decay=p.weight_decay,
        )
