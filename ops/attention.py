"""Scaled dot-product attention over packed queries, keys and values, arXiv:1706.03762.

qkv holds, for each token, `heads` queries, then `kv_heads` keys, then `kv_heads` values, D wide each; a group of
heads / kv_heads queries shares a key and a value (arXiv:2305.13245). For one head, with i a query and j a key:
    s_ij = scale * q_i . k_j,  then cap * tanh(s_ij / cap) if softcap,  -inf where i may not see j
    p_ij = exp(s_ij - lse_i),  lse_i = log sum_j exp(s_ij),  y_i = sum_j p_ij v_j
    dv_j = sum_i p_ij dy_i,  dp_ij = dy_i . v_j,  ds_ij = p_ij (dp_ij - sum_j p_ij dp_ij), times 1 - (s/cap)^2
    dq_i = scale * sum_j ds_ij k_j,  dk_j = scale * sum_i ds_ij q_i
A query that may see no key gives 0. While decoding, keys and values are appended to a cache, and each row of the
batch attends to its own start + T entries of it.
"""

import math

import numpy as np

from core import BuildError, Op, Reference


def settle_heads(dims):
    heads, kv_heads = dims["heads"], dims["kv_heads"] or dims["heads"]
    if heads < 1 or kv_heads < 1 or heads % kv_heads:
        raise BuildError(
            f"heads = {heads} and kv_heads = {kv_heads}; expected whole groups of heads", hint="heads % kv_heads is 0"
        )
    if dims["window"] < 0 or dims["scale"] < 0 or dims["softcap"] < 0:
        raise BuildError("window, scale and softcap must not be negative", hint="0 means none")
    width = heads + 2 * kv_heads
    if dims["E"] % width:
        below = dims["E"] // width * width
        raise BuildError(
            f"qkv has {dims['E']} features, which is no multiple of heads + 2*kv_heads = {width}; the nearest are "
            f"{below} and {below + width}",
            hint='the layer before it has features = "(heads + 2*kv_heads) * D"',
        )
    dims["kv_heads"], dims["D"] = kv_heads, dims["E"] // width


def why_no_decode(dims):
    return None if dims["causal"] else "causal = false: every token looks at later ones, which are not there yet"


def far_scores():
    """Three heads: scores near 100, where exp itself overflows, near -100, where it vanishes, and all equal."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 11, 3, 8)) / 4
    q[:, :, :2] += 6
    k[:, :, 0] += 6
    k[:, :, 1] -= 6
    q[:, :, 2] = 0
    return np.concatenate([q, k, v], axis=2).reshape(1, 11, 9 * 8)


attention = Op(
    "attention",
    inputs={"qkv": "B T E", "documents?": "B T : i32"},
    outputs={"y": "B T heads*D"},
    attrs={"heads": int, "kv_heads": 0, "causal": True, "window": 0, "scale": 0.0, "softcap": 0.0},
    state={"k": "B S kv_heads*D", "v": "B S kv_heads*D"},
    infer=settle_heads,
    uses=("start",),
    why_no_decode=why_no_decode,
    flops="4*B*T*T*heads*D",  # q . k and p v, for every pair of a query and a key
    needed_flops="4*B*T*T*heads*D / (1 + causal)",
    examples=[
        {"qkv": (2, 7, 48), "heads": 2},
        {"qkv": (1, 13, 3 * 5 * 3), "heads": 3, "causal": False},
        {"qkv": (2, 11, 8 * 5), "heads": 4, "kv_heads": 2, "window": 3},
        {"qkv": (2, 9, 6 * 5), "heads": 4, "kv_heads": 1, "scale": 0.3, "softcap": 0.75},
        {"qkv": (2, 17, 24), "documents": (2, 17), "heads": 1},
        {"qkv": (1, 1, 3), "heads": 1},
        {"qkv": (1, 131, 3 * 8), "heads": 1},  # more keys than any tile has
        {"qkv": (1, 3, 19 * 8), "heads": 17, "kv_heads": 1},  # more heads than any group, then key heads, then columns
        {"qkv": (1, 2, 51 * 8), "heads": 17},
        {"qkv": (1, 2, 3 * 72), "heads": 1},
        {"qkv": far_scores(), "heads": 3},
    ],
    doc="Attention with shared key heads, a window, soft-capped scores, documents, and a cache for decoding.",
)


def split_heads(packed, heads, kv_heads):
    """(B, T, E) -> views of q (B, kv_heads, heads/kv_heads, T, D) and of k, v (B, kv_heads, 1, T, D)."""
    B, T, E = packed.shape
    D = E // (heads + 2 * kv_heads)
    by_head = packed.reshape(B, T, -1, D).swapaxes(1, 2)
    q, k, v = np.split(by_head, [heads, heads + kv_heads], axis=1)
    return q.reshape(B, kv_heads, -1, T, D), k[:, :, None], v[:, :, None]


def merge_heads(y):
    """(B, kv_heads, group, T, D) -> (B, T, heads*D)."""
    B, K, G, T, D = y.shape
    return y.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G * D)


def visible(queries, keys, causal, window):
    """The mask of keys, at positions `keys`, that each query at positions `queries` may see."""
    distance = queries[:, None] - keys[None, :]
    seen = np.ones(distance.shape, bool)
    if causal:
        seen &= distance >= 0
    if window:
        seen &= distance < window
    return seen


def scores(q, k, t):
    """Scores before the mask, softcap included."""
    s = (q @ k.swapaxes(-1, -2)) * (t.scale or 1 / math.sqrt(t.D))
    return t.softcap * np.tanh(s / t.softcap) if t.softcap else s


def softmax(s, seen):
    """Probabilities and lse over the seen keys; both 0 for a query that sees none."""
    s = np.where(seen, s, -math.inf)
    top = s.max(-1, keepdims=True)
    top[np.isneginf(top)] = 0
    p = np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    total[total == 0] = 1
    return p / total, (top + np.log(total))[..., 0]


def decode(t):
    """Append T keys and values at `start`, and attend over all cached entries of each row of the batch."""
    for b, start in enumerate(t.start.tolist()):  # rows have different lengths, and nothing unwritten is read
        end = start + t.T
        q, k, v = split_heads(t.qkv[b : b + 1], t.heads, t.kv_heads)
        t.k[b, start:end], t.v[b, start:end] = merge_heads(k)[0], merge_heads(v)[0]
        k, v = (c[b, :end].reshape(end, t.kv_heads, 1, t.D).transpose(1, 2, 0, 3)[None] for c in (t.k, t.v))
        seen = visible(np.arange(start, end), np.arange(end), t.causal, t.window)
        t.y[b] = merge_heads(softmax(scores(q, k, t), seen)[0] @ v)[0]


class AttentionReference(Reference):
    op = "attention"
    saved = {"lse": "B heads T : acc"}
    reads = ("qkv", "documents")
    can_add = ("qkv",)

    def seen(self, t):
        """Visible pairs: (T, T), or (B, 1, 1, T, T) with documents."""
        at = np.arange(t.T)
        seen = visible(at, at, t.causal, t.window)
        if t.documents is None:
            return seen
        return seen & (t.documents[:, :, None] == t.documents[:, None, :])[:, None, None]

    def forward(self, t):
        if t.start is not None:
            decode(t)
            return
        q, k, v = split_heads(t.qkv, t.heads, t.kv_heads)
        p, lse = softmax(scores(q, k, t), self.seen(t))
        t.lse[...] = lse.reshape(t.lse.shape)
        t.y[...] = merge_heads(p @ v)

    def backward(self, t):
        if t.dqkv is None:
            return
        q, k, v = split_heads(t.qkv, t.heads, t.kv_heads)
        dy = t.dy.reshape(t.B, t.T, t.kv_heads, -1, t.D).transpose(0, 2, 3, 1, 4)
        s = scores(q, k, t)
        lse = t.lse.reshape(t.B, t.kv_heads, -1, t.T, 1)
        p = np.exp(np.where(self.seen(t), s - lse, -math.inf))
        dv = (p.swapaxes(-1, -2) @ dy).sum(2)  # a key's gradient comes from all heads of its group
        dp = dy @ v.swapaxes(-1, -2)
        ds = p * (dp - (p * dp).sum(-1, keepdims=True))
        if t.softcap:
            ds *= 1 - (s / t.softcap) ** 2
        ds *= t.scale or 1 / math.sqrt(t.D)
        dq, dk = ds @ k, (ds.swapaxes(-1, -2) @ q).sum(2)
        t.add("dqkv", np.concatenate([merge_heads(dq), merge_heads(dk[:, :, None]), merge_heads(dv[:, :, None])], -1))

    def maps(self, t):
        q, k, _ = split_heads(t.qkv, t.heads, t.kv_heads)
        return {"weights": softmax(scores(q, k, t), self.seen(t))[0].reshape(t.B, t.heads, t.T, t.T)}

    def parts(self, t, tensor, index):
        b, i, head, d = (*index[:2], *divmod(index[2], t.D)) if tensor != "lse" else (index[0], index[2], index[1], 0)
        at, group = np.arange(t.T), t.heads // t.kv_heads
        alike = np.ones(t.T, bool) if t.documents is None else t.documents[b] == t.documents[b, i]
        query, value = head < t.heads, head >= t.heads + t.kv_heads
        g = head // group if query else (head - t.heads) % t.kv_heads
        first, last = (head, head + 1) if query else (g * group, (g + 1) * group)  # the heads whose queries take part

        def keys_near(queries):
            return visible(at[queries], at, t.causal, t.window).any(0)

        near = at == i if query else visible(at, at[i : i + 1], t.causal, t.window)[:, 0]
        queries = near & alike
        keys = at == i if value else keys_near(queries) & alike

        def columns(first, last):
            return slice(first * t.D, last * t.D)

        def boxes(rows, wide):
            return [(b, run, wide) for run in self.runs(rows)]

        qkv = boxes(queries, columns(first, last)) + boxes(keys, columns(t.heads + g, t.heads + g + 1))
        parts = {"qkv": qkv}
        if t.documents is not None:
            parts["documents"] = [(b, run) for run in self.runs(keys_near(near))]
        v = t.heads + t.kv_heads + g
        if tensor == "y":
            qkv += boxes(keys, v * t.D + d)
        if tensor == "dqkv":
            qkv += [] if value else boxes(keys, columns(v, v + 1))
            parts["dy"] = boxes(queries, slice(first * t.D + d, last * t.D, t.D) if value else columns(first, last))
            parts["lse"] = [(b, slice(first, last), run) for run in self.runs(queries)]
        return parts
