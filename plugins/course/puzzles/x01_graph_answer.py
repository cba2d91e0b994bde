"""The slopes of a graph. The way forwards is done, and its values are all here. Return the slopes of the loss for b, x
and w."""


def slopes(x, w, b):
    p = x * w
    s = p + b
    q = s * s
    loss = q * p
    #[ from the last line up: dloss, dq, ds, dp, and then {"b": ..., "x": ..., "w": ...}
    dloss = 1
    dq = dloss * p
    ds = dq * 2 * s
    dp = dloss * q + ds
    return {"b": ds, "x": dp * w, "w": dp * x}
    #]
