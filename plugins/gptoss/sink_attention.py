"""Causal attention with a sink for each head, arXiv:2508.10925, over packed queries, keys and values.

qkv is as of attention: for each token `heads` queries, then `kv_heads` keys, then `kv_heads` values, D wide each. The
sink of a head is a score beside those of the keys, of a value 0: a query may look at nothing. For one head, with i a
query and j <= i a key, i - j < window if there is one:
    s_ij = scale * q_i . k_j,  lse_i = log(exp(sink) + sum_j exp(s_ij))
    p_ij = exp(s_ij - lse_i),  y_i = sum_j p_ij v_j
    dv_j = sum_i p_ij dy_i,  ds_ij = p_ij (dy_i . v_j - dy_i . y_i),  dsink = -sum_i exp(sink - lse_i) dy_i . y_i
    dq_i = scale * sum_j ds_ij k_j,  dk_j = scale * sum_i ds_ij q_i
While decoding, keys and values are appended to a cache, and each row of the batch looks at its own start + T entries.
"""

import math

import numpy as np

from core import BuildError, Op, Param, Reference


def settle(dims):
    heads, kv_heads = dims["heads"], dims["kv_heads"] or dims["heads"]
    width = heads + 2 * kv_heads
    if heads < 1 or kv_heads < 1 or heads % kv_heads or dims["E"] % width:
        raise BuildError(
            f"qkv has {dims['E']} features, heads = {heads}, kv_heads = {kv_heads}; expected whole groups of heads",
            hint='the layer before it has features = "(heads + 2*kv_heads) * D"',
        )
    if dims["window"] < 0 or dims["scale"] < 0:
        raise BuildError("window and scale must not be negative", hint="0 means none")
    dims["kv_heads"], dims["D"] = kv_heads, dims["E"] // width


sink_attention = Op(
    "sink_attention",
    inputs={"qkv": "B T E"},
    outputs={"y": "B T heads*D"},
    params={"sink": Param("heads", init="zeros", decay=False)},
    attrs={"heads": int, "kv_heads": 0, "window": 0, "scale": 0.0},
    state={"k": "B S kv_heads*D", "v": "B S kv_heads*D"},
    infer=settle,
    uses=("start",),
    flops="4*B*T*T*heads*D",
    needed_flops="2*B*T*T*heads*D",
    examples=[
        {"qkv": (2, 7, 48), "heads": 2},
        {"qkv": (2, 11, 8 * 5), "heads": 4, "kv_heads": 2, "window": 3, "scale": 0.3},
        {"qkv": (1, 1, 3), "heads": 1},
        {"qkv": (1, 131, 3 * 8), "heads": 1},  # more keys than any tile has
        {"qkv": (1, 3, 19 * 8), "heads": 17, "kv_heads": 1},
        {"qkv": (1, 2, 3 * 72), "heads": 1},  # more columns than lanes
        {"qkv": (1, 2, 3 * 17 * 3), "heads": 17},
    ],
    doc="Causal attention whose queries may look at nothing: a learned sink for each head; a window, a cache.",
)


def split(packed, t):
    """(B, T, E) -> views of q (B, kv_heads, heads/kv_heads, T, D) and of k, v (B, kv_heads, 1, T, D)."""
    B, T, _ = packed.shape
    q, k, v = np.split(packed.reshape(B, T, -1, t.D).swapaxes(1, 2), [t.heads, t.heads + t.kv_heads], axis=1)
    return q.reshape(B, t.kv_heads, -1, T, t.D), k[:, :, None], v[:, :, None]


def merge(y):
    """(B, kv_heads, group, T, D) -> (B, T, heads*D)."""
    return y.transpose(0, 3, 1, 2, 4).reshape(y.shape[0], y.shape[3], -1)


def weights(q, k, first, t):
    """p, (B, kv_heads, group, T, keys), and lse without the last dim, of queries whose positions start at `first`."""
    distance = first + np.arange(q.shape[-2])[:, None] - np.arange(k.shape[-2])
    seen = (distance >= 0) & (distance < (t.window or k.shape[-2]))
    s = np.where(seen, (q @ k.swapaxes(-1, -2)) * scale(t), -math.inf)
    sink = t.sink.reshape(t.kv_heads, -1, 1)
    top = np.maximum(s.max(-1), sink)
    lse = top + np.log(np.exp(s - top[..., None]).sum(-1) + np.exp(sink - top))
    return np.exp(s - lse[..., None]), lse


def scale(t):
    return t.scale or 1 / math.sqrt(t.D)


class SinkAttentionReference(Reference):
    op = "sink_attention"
    saved = {"lse": "B heads T : acc"}
    reads = ("qkv", "y", "sink")
    can_add = ("qkv",)

    def forward(self, t):
        if t.start is not None:
            self.decode(t)
            return
        q, k, v = split(t.qkv, t)
        p, lse = weights(q, k, 0, t)
        t.lse[...] = lse.reshape(t.lse.shape)
        t.y[...] = merge(p @ v)

    def decode(self, t):
        """Append T keys and values at `start`, and attend over all tokens of each row of the batch so far."""
        for b, start in enumerate(t.start.tolist()):
            end = start + t.T
            q, k, v = split(t.qkv[b : b + 1], t)
            t.k[b, start:end], t.v[b, start:end] = merge(k)[0], merge(v)[0]
            k, v = (c[b, :end].reshape(1, end, t.kv_heads, 1, t.D).transpose(0, 2, 3, 1, 4) for c in (t.k, t.v))
            t.y[b] = merge(weights(q, k, start, t)[0] @ v)[0]

    def backward(self, t):
        q, k, v = split(t.qkv, t)
        dy, y = (part.reshape(t.B, t.T, t.kv_heads, -1, t.D).transpose(0, 2, 3, 1, 4) for part in (t.dy, t.y))
        p, lse = weights(q, k, 0, t)
        along = (dy * y).sum(-1)
        share = np.exp(t.sink.reshape(t.kv_heads, -1, 1) - lse)  # of the sink
        t.add("dsink", -(share * along).sum((0, 3)).reshape(-1))
        if t.dqkv is None:
            return
        ds = p * (dy @ v.swapaxes(-1, -2) - along[..., None]) * scale(t)
        dq, dk = ds @ k, (ds.swapaxes(-1, -2) @ q).sum(2)  # a key's gradient comes from all heads of its group
        dv = (p.swapaxes(-1, -2) @ dy).sum(2)
        t.add("dqkv", np.concatenate([merge(dq), merge(dk[:, :, None]), merge(dv[:, :, None])], -1))

    def parts(self, t, tensor, index):
        if tensor == "dsink":
            b, rows, keys, head, d = slice(None), slice(None), slice(None), index[0], 0
        else:
            b, i, head, d = (
                (index[0], index[2], index[1], 0) if tensor == "lse" else (*index[:2], *divmod(index[2], t.D))
            )
        group, reach = t.heads // t.kv_heads, t.window or t.T
        query, value = head < t.heads, head >= t.heads + t.kv_heads
        g = head // group if query else (head - t.heads) % t.kv_heads
        first, last = (head, head + 1) if query else (g * group, (g + 1) * group)  # the heads whose queries take part
        if tensor != "dsink":
            rows = slice(i, i + 1 if query else min(t.T, i + reach))
            keys = slice(max(0, i - reach + 1), rows.stop)  # those that these queries see

        def columns(first, last):
            return slice(first * t.D, last * t.D)

        v, own = t.heads + t.kv_heads + g, columns(first, last)
        qkv = [(b, rows, own), (b, keys, columns(t.heads + g, t.heads + g + 1))]
        parts = {"qkv": qkv, "sink": (slice(first, last),)}
        if tensor == "y":
            qkv.append((b, keys, v * t.D + d))
        if tensor == "dqkv" and not value:
            qkv.append((b, keys if query else i, columns(v, v + 1)))
        if tensor in ("dqkv", "dsink"):
            parts["dy"] = (b, rows, slice(first * t.D + d, last * t.D, t.D) if value else own)
        if tensor == "dsink" or (tensor == "dqkv" and not value):
            parts["y"] = (b, rows, own)
        return parts
