"""Cross-entropy of a softmax, and its gradient. logits: (rows, V), targets: (rows,). A target of -1 does not count: its
loss is 0, and so is its row of the gradient. Returns {"loss": (rows,), "gradient": (rows, V)}."""

import numpy as np


def cross_entropy(logits, targets):
    rows, counts = np.arange(len(logits)), targets >= 0
    #[ shift, exp, sum: the loss of each row, and the slope of that loss for each score
    top = logits.max(-1, keepdims=True)
    e = np.exp(logits - top)
    total = e.sum(-1, keepdims=True)
    loss = np.log(total[:, 0]) - (logits - top)[rows, targets]
    dz = e / total
    dz[rows, targets] -= 1
    return {"loss": loss * counts, "gradient": dz * counts[:, None]}
    #]
