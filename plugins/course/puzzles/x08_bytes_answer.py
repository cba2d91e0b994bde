"""Bytes of a GPT-2 in f32. V, S, C, L: its sizes; B rows of T tokens are trained at a time. Returns a dict: weights,
gradients, optimizer (AdamW), saved (activations that backward reads, without the few numbers a row of norms and of
attention) and cache (keys and values while T tokens of one row are generated)."""


def bytes_of(V, S, C, L, B, T):
    #[ {"weights": ..., "gradients": ..., "optimizer": ..., "saved": ..., "cache": ...}
    weights = 4 * (V * C + S * C + L * (12 * C * C + 13 * C) + 2 * C)
    saved = 4 * B * T * C * (2 + 16 * L)
    cache = 2 * 4 * L * T * C
    return {"weights": weights, "gradients": weights, "optimizer": 2 * weights, "saved": saved, "cache": cache}
    #]
