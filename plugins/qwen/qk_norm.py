"""RMSNorm of queries and keys, packed, arXiv:2302.05442; the values pass through.

A group g of a token's queries becomes g * rstd * (offset + q_weight), of its keys g * rstd * (offset + k_weight), with
rstd = 1 / sqrt(mean(g^2) + eps): each head is a group (Qwen 3), or all queries are one and all keys another (OLMo 2,
arXiv:2501.00656). offset is 0, or 1 for weights that start at 0 (Gemma 3). Without weights: factor 1 (nanochat).
With n = g * rstd and dn = dy * (offset + weight), over each group:
    dg = rstd * (dn - n * mean(dn * n)),  dweight = sum of dy * n over all groups.
"""

import numpy as np

from core import BuildError, Op, Param, Reference
from core.examples import far_rows, scaled_rows


def settle(dims):
    heads, kv_heads = dims["heads"], dims["kv_heads"] or dims["heads"]
    width = heads + 2 * kv_heads
    if heads < 1 or kv_heads < 1 or dims["E"] % width:
        raise BuildError(
            f"qkv has {dims['E']} features, heads = {heads}, kv_heads = {kv_heads}; expected whole heads",
            hint='the layer before it has features = "(heads + 2*kv_heads) * D"',
        )
    D = dims["E"] // width
    dims["kv_heads"] = kv_heads
    dims["Q"], dims["K"] = (D, D) if dims["group"] == "head" else (heads * D, kv_heads * D)
    dims["queries"], dims["keys"] = heads * D // dims["Q"], kv_heads * D // dims["K"]


qk_norm = Op(
    "qk_norm",
    inputs={"qkv": "... E"},
    outputs={"y": "... E"},
    params={
        "q_weight": Param("Q", init="ones", decay=False, optional=True),
        "k_weight": Param("K", init="ones", decay=False, optional=True),
    },
    attrs={"heads": int, "kv_heads": 0, "group": ("head", "all"), "eps": 1e-6, "offset": 0.0},
    infer=settle,
    examples=[
        {"qkv": (2, 7, 48), "heads": 2},
        {"qkv": (2, 5, 8 * 6), "heads": 4, "kv_heads": 2, "group": "all", "eps": 0.3, "offset": 1.0},
        {"qkv": (3, 6 * 33), "heads": 2, "kv_heads": 2, "eps": 0.3},
        {"qkv": (3, 4 * 12), "heads": 2, "kv_heads": 1, "q_weight": False, "k_weight": False},
        {"qkv": (1, 7), "heads": 3, "kv_heads": 2, "group": "all"},
        {"qkv": (1, 1, 3), "heads": 1},
        {"qkv": (1, 19 * 64), "heads": 17, "kv_heads": 1, "group": "all"},  # heads and columns beyond any thread block
        {"qkv": (1, 19 * 2), "heads": 17, "kv_heads": 1},
        {"qkv": (1, 3 * 1031), "heads": 1},
        {"qkv": (1031, 3 * 2), "heads": 1},
        {"qkv": far_rows(3 * 33), "heads": 1},
        {"qkv": scaled_rows(3 * 32), "heads": 1},
    ],
    doc="Queries and keys scaled to root mean square 1, head by head or all at once, then by weights.",
)


def parts(packed, t):
    """Views of the groups of queries, (rows, queries, Q), of keys, (rows, keys, K), and of the values, (rows, ...)."""
    flat = packed.reshape(-1, t.E)
    ends = np.cumsum([t.queries * t.Q, t.keys * t.K])
    q, k, v = np.split(flat, ends, axis=1)
    return q.reshape(-1, t.queries, t.Q), k.reshape(-1, t.keys, t.K), v


def factor(weight, t):
    """The factor of a normed group: (Q,), (K,), or 1 without a weight."""
    return 1 if weight is None else t.offset + weight


class QkNormReference(Reference):
    op = "qk_norm"
    saved = {"rstd": "... queries+keys : acc"}
    reads = ("qkv", "q_weight", "k_weight")
    can_add = ("qkv",)

    def rstds(self, t):
        """Views of rstd: (rows, queries) and (rows, keys)."""
        return np.split(t.rstd.reshape(-1, t.queries + t.keys), [t.queries], axis=1)

    def forward(self, t):
        *groups, values = parts(t.qkv, t)
        *outs, copied = parts(t.y, t)
        for x, y, rstd, weight in zip(groups, outs, self.rstds(t), (t.q_weight, t.k_weight), strict=True):
            rstd[...] = 1 / np.sqrt(np.mean(x * x, axis=-1) + t.eps)
            y[...] = x * rstd[..., None] * factor(weight, t)
        copied[...] = values

    def backward(self, t):
        dqkv = np.empty_like(t.dy)
        *groups, _ = parts(t.qkv, t)
        *above, dvalues = parts(t.dy, t)
        *below, copied = parts(dqkv, t)
        for x, dy, dx, rstd, name in zip(groups, above, below, self.rstds(t), ("q_weight", "k_weight"), strict=True):
            n, dn = x * rstd[..., None], dy * factor(getattr(t, name), t)
            dx[...] = rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))
            if getattr(t, name) is not None:
                t.add("d" + name, (dy * n).sum((0, 1)))
        copied[...] = dvalues
        t.add("dqkv", dqkv)

    def parts(self, t, tensor, index):
        *row, at = index
        ends = t.queries * t.Q, t.queries * t.Q + t.keys * t.K
        if tensor in ("dq_weight", "dk_weight"):
            start, stop, width = (0, ends[0], t.Q) if tensor == "dq_weight" else (*ends, t.K)
            columns = (..., slice(start + at, stop, width))
            groups = slice(None, t.queries) if tensor == "dq_weight" else slice(t.queries, None)
            return {"qkv": columns, "rstd": (..., groups), "dy": columns}
        if tensor != "rstd" and at >= ends[1]:
            return {"qkv" if tensor == "y" else "dy": index}
        query = at < (t.queries if tensor == "rstd" else ends[0])
        start, width, before = (0, t.Q, 0) if query else (ends[0], t.K, t.queries)
        group = at - before if tensor == "rstd" else (at - start) // width
        parts = {"qkv": (*row, slice(start + group * width, start + (group + 1) * width))}
        weight = "q_weight" if query else "k_weight"
        if tensor == "dqkv":
            parts |= {"dy": parts["qkv"], "rstd": (*row, before + group)}
        if getattr(t, weight) is not None and tensor != "rstd":
            parts[weight] = ((at - start) % width,) if tensor == "y" else (slice(None),)
        return parts
