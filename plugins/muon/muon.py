"""Muon, MomentUm Orthogonalized by Newton-Schulz: K. Jordan, "Muon: An optimizer for hidden layers", 2024.

With g = scale * grad, for a matrix of A rows and B columns:
    m = momentum m + (1 - momentum) g,  u = momentum m + (1 - momentum) g  (or m itself, without nesterov)
    param -= lr * (0.2 sqrt(max(A, B)) X + weight_decay param),  X = orthogonal(u),  lr: lr_factor times the step's
orthogonal(u) takes u's singular values to about 1: X = u / |u|, of its transpose where A > B, then a few times
    S = X X^T,  X = 3.4445 X + (-4.7750 S + 2.0315 S S) X
whose polynomial lifts small singular values and keeps all of them between about 0.7 and 1.2. The factor
0.2 sqrt(max(A, B)) gives the step the size of one of AdamW's (arXiv:2502.16982): one learning rate serves both.
"""

import fnmatch

import numpy as np

from core import BuildError, Op, Optimizer, Reference, product

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
TINY = 1e-7  # added to |u|: a gradient of zero moves nothing


def matrix(dims):
    if not 0 <= dims["momentum"] < 1:
        raise BuildError(f"momentum is {dims['momentum']}; expected 0 <= momentum < 1")
    if dims["iterations"] < 1:
        raise BuildError(f"iterations is {dims['iterations']}; expected at least 1")


muon_update = Op(
    "muon_update",
    inputs={"param": "A B", "grad": "A B : acc", "m": "A B : acc", "master?": "A B : acc"},
    attrs={"momentum": 0.95, "nesterov": True, "iterations": 5, "weight_decay": 0.1, "lr_factor": 1.0},
    infer=matrix,
    uses=("step",),
    gradient=False,
    mutates=("param", "m", "master"),
    examples=[
        {"param": (24, 40), "grad": (24, 40), "m": (24, 40)},
        {"param": (67, 35), "grad": (67, 35), "m": (67, 35), "nesterov": False},
        {"param": (33, 33), "grad": (33, 33), "m": (33, 33), "master": (33, 33), "weight_decay": 0.0},
        {"param": (3, 4), "grad": (3, 4), "m": (3, 4), "lr_factor": 0.3},
        {"param": (1, 5), "grad": (1, 5), "m": (1, 5), "iterations": 1},
        {"param": (70, 1), "grad": (70, 1), "m": (70, 1)},
        {"param": (2, 1031), "grad": (2, 1031), "m": (2, 1031), "iterations": 2},  # beyond any tile
        {"param": (1031, 2), "grad": (1031, 2), "m": (1031, 2), "iterations": 2},
        {"param": (3, 5), "grad": np.zeros((3, 5)), "m": np.zeros((3, 5))},  # no length to divide by
    ],
    doc="One Muon update of one matrix.",
)


def step_size(t):
    """The factor of the orthogonal direction in addition to the learning rate."""
    return 0.2 * max(t.A, t.B) ** 0.5


class MuonUpdateReference(Reference):
    op = "muon_update"

    def forward(self, t):
        if not t.step.ok:
            return
        weights = t.param if t.master is None else t.master
        g = t.step.scale * t.grad
        t.m[...] = t.momentum * t.m + (1 - t.momentum) * g
        u = t.momentum * t.m + (1 - t.momentum) * g if t.nesterov else t.m
        weights -= (
            t.step.lr * t.lr_factor * (step_size(t) * self.orthogonal(u, t.iterations) + t.weight_decay * weights)
        )
        if t.master is not None:
            t.param[...] = weights

    def orthogonal(self, u, iterations):
        a, b, c = COEFFICIENTS
        x = u.T if u.shape[0] > u.shape[1] else u
        x = x / (np.sqrt((x * x).sum()) + TINY)
        for _ in range(iterations):
            s = product(x, x.T)
            x = a * x + product(b * s + c * product(s, s), x)
        return x.T if u.shape[0] > u.shape[1] else x

    def parts(self, t, tensor, index):
        if tensor == "m":
            return {"m": index, "grad": index}
        return {"param" if t.master is None else "master": index, "grad": (...,), "m": (...,)}


class Muon(Optimizer):
    """Muon for the matrices between embedding and head; AdamW for those that `adamw` names, and for all vectors."""

    name = "muon"
    whole, groups = True, True
    options = {
        "momentum": 0.95,
        "nesterov": True,
        "iterations": 5,
        "weight_decay": 0.1,
        "adamw": ["wte.*", "wpe.*", "x0.*", "embed*", "logits.*", "head.*"],  # matrices that are no linear map inside
        "betas": [0.9, 0.95],
        "eps": 1e-8,
    }
    below = {"momentum": 1.0, "betas": 1.0}
    state = {"m": "n : acc", "v": "n : acc"}

    def step(self, p, launch):
        hidden = [one for one in p.parameters if len(one.shape) == 2 and not self.named(one.name, p.adamw)]
        launch.op("global_norm", grad=p.grad, step=p.control, clip=p.clip)
        for one in hidden:
            launch.op(
                "muon_update",
                param=one.param,
                grad=one.grad,
                m=one.m,
                master=one.master,
                step=p.control,
                momentum=p.momentum,
                nesterov=p.nesterov,
                iterations=p.iterations,
                weight_decay=one.weight_decay if one.decays else 0.0,
                lr_factor=one.lr_factor,
            )
        own = {"beta1": p.betas[0], "beta2": p.betas[1], "eps": p.eps}
        names = [one.name for one in hidden]
        for one in p.groups:
            rest = {**one.flat, "group": one.group_without(names)}
            launch.op("adamw_update", **rest, **own, weight_decay=one.weight_decay)

    def named(self, name, globs):
        return any(fnmatch.fnmatchcase(name, glob) for glob in globs)
