"""Cross-entropy of a softmax: loss = lse - logits[target], lse = log sum exp(logits), for each token.

Gradient: dlogits = dloss * (exp(logits - lse) - [column is the target]). Where the target is negative, the token is
ignored: loss and gradient are 0. Columns from `classes` on (by default the padding) are no part of the softmax, and
their gradient is 0.
"""

import numpy as np

from core import BuildError, Op, Reference, unpadded
from core.examples import scaled_rows, tied_rows


def settle_classes(dims):
    columns = unpadded(dims["P"])
    dims["classes"] = unpadded(dims["classes"]) or columns
    if not 0 < dims["classes"] <= columns:
        raise BuildError(
            f"classes = {dims['classes']}, but the logits have {columns} columns",
            hint="without padding, which is no class",
        )


def distant():
    """Logits of 37 classes far above and far below zero, where exp itself overflows or vanishes; padding at zero."""
    logits = np.zeros((6, 40))
    logits[:, :37] = 3 * np.sin(np.arange(6.0 * 37)).reshape(6, 37)
    logits[::2, :37] += 120
    logits[1::2, :37] -= 120
    return logits


def hidden():
    """Logits of 33 classes, of which a mask hides many: -inf, whose exponential is no class's share."""
    logits = np.sin(np.arange(2.0 * 33)).reshape(2, 33)
    logits[0, 8:] = logits[1, :25] = -np.inf
    return logits


cross_entropy = Op(
    "cross_entropy",
    inputs={"logits": "... P", "targets": "... : i32 < classes"},
    outputs={"loss": "... : acc"},
    attrs={"classes": 0},
    infer=settle_classes,
    padding=("P", "classes"),
    examples=[
        {"logits": (2, 7, 32), "targets": (2, 7), "classes": 29},
        {"logits": (5, 33), "targets": (5,)},
        {"logits": (1, 1), "targets": (1,)},
        {"logits": distant(), "targets": (6,), "classes": 37},
        {"logits": (2, 4111), "targets": (2,), "classes": 4103},  # more classes, then rows, than a pass takes
        {"logits": (1031, 3), "targets": (1031,)},
        {"logits": np.concatenate([scaled_rows(33), tied_rows(3, 33)]), "targets": (6,)},
        {"logits": hidden(), "targets": np.array([3, 29])},
    ],
    doc="The negative log-likelihood of each target; negative targets are ignored.",
)


class CrossEntropyReference(Reference):
    op = "cross_entropy"
    saved = {"lse": "... : acc"}
    reads = ("logits", "targets")
    can_add = ("logits",)
    inplace = {"dlogits": "logits"}
    made_of = {"loss": "logits targets", "lse": "logits", "dlogits": "logits lse targets dloss"}

    def forward(self, t):
        z, target = t.logits.reshape(-1, t.P)[:, : t.classes], t.targets.reshape(-1)
        top = z.max(-1)
        lse = top + np.log(np.exp(z - top[:, None]).sum(-1))
        t.lse[...] = lse.reshape(t.lse.shape)
        loss = lse - z[np.arange(len(z)), np.maximum(target, 0)]
        t.loss[...] = np.where(target < 0, 0, loss).reshape(t.loss.shape)

    def backward(self, t):
        if t.dlogits is None:
            return
        z, target = t.logits.reshape(-1, t.P), t.targets.reshape(-1)
        g = np.zeros_like(z)
        g[:, : t.classes] = np.exp(z[:, : t.classes] - t.lse.reshape(-1, 1))
        g[np.arange(len(z)), np.maximum(target, 0)] -= 1
        t.add("dlogits", g * np.where(target < 0, 0, t.dloss.reshape(-1))[:, None])
