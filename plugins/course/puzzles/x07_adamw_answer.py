"""One update of AdamW. param, grad, m, v: arrays of one shape; step: 1 for the first update. Returns {"m": ...,
"v": ..., "param": ...}, new arrays."""

import numpy as np


def adamw(param, grad, m, v, step, lr, beta1, beta2, eps, decay):
    #[ running means m and v, both corrected for their start at 0; a step; and decay, apart from the gradient
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad * grad
    mhat, vhat = m / (1 - beta1**step), v / (1 - beta2**step)
    new = param - lr * (mhat / (np.sqrt(vhat) + eps) + decay * param)
    return {"m": m, "v": v, "param": new}
    #]
