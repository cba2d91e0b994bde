"""Attention over queries and keys that are turned by their positions: q = rope(qkv), y = attention(q).

One op pays while decoding: a token is one launch for both, and the rotated values need no memory in between. In
training it would not pay: rope's backward reads no tensor, so that qkv is not saved anyway, and rotated values that are
recomputed in backward save no byte. So its variants have no backward, and training plans keep the two ops.
The pattern defines the result, and with it the reference of the op check.
"""

from core import BuildError, Op

from . import rope


def settle(dims):
    rope.settle(dims)
    heads, kv_heads = dims["heads"], dims["kv_heads"]
    if heads % kv_heads:
        raise BuildError(f"heads = {heads} and kv_heads = {kv_heads}; expected whole groups of heads")


def why_no_decode(dims):
    return None if dims["causal"] else "causal = false: every token looks at later ones, which are not there yet"


rope_attention = Op(
    "rope_attention",
    inputs={"qkv": "B T E", "documents?": "B T : i32"},
    outputs={"y": "B T heads*D"},
    attrs={**rope.rope.attrs, "causal": True, "window": 0, "scale": 0.0, "softcap": 0.0},
    state={"k": "B S kv_heads*D", "v": "B S kv_heads*D"},
    replaces="q = rope(qkv); y = attention(q, documents)",
    infer=settle,
    uses=("start",),
    why_no_decode=why_no_decode,
    flops="4*B*T*T*heads*D",
    needed_flops="4*B*T*T*heads*D / (1 + causal)",
    examples=[
        {"qkv": (2, 7, 48), "heads": 2},
        {"qkv": (3, 5, 8 * 8), "heads": 4, "kv_heads": 2, "base": 500.0, "window": 3, "softcap": 0.75},
        {"qkv": (1, 6, 5 * 10), "heads": 3, "kv_heads": 1, "base": 100.0, "factor": 8.0, "length": 40, "scale": 0.3},
        {"qkv": (2, 5, 4 * 10), "heads": 2, "kv_heads": 1, "width": 4, "pairs": "neighbours", "gain": 1.25},
        {"qkv": (1, 5, 4 * 10), "heads": 2, "kv_heads": 1, "width": 8, "reverse": True},
        {"qkv": (1, 1, 6), "heads": 1},
        {"qkv": (1, 131, 3 * 8), "heads": 1},  # more keys than any tile has, more heads than any group
        {"qkv": (1, 3, 19 * 8), "heads": 17, "kv_heads": 1},
        {"qkv": (1, 2, 51 * 8), "heads": 17},
        {"qkv": (1, 2, 3 * 72), "heads": 1},
    ],
    doc="Rotary positions and attention, in one go while decoding.",
)
