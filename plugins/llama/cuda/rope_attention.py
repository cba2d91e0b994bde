"""Rotary positions and attention on CUDA while decoding, in one launch. Kernel: rope_attention.cu."""

import math

from core import Variant, f32, i32
from core.kernels.width import defined, width

from .rope import table

TOKENS = 40  # at once, at most
COLUMNS = 256  # of a head, at most


class RopeAttentionDecode(Variant):
    """A token is one launch where rope and attention are three. Forward only: training keeps the two ops apart."""

    op, name = "rope_attention", "decode"
    backward = None
    examples = [
        {"qkv": (1, 40, 4 * 16), "heads": 2, "kv_heads": 1},  # two tiles of keys, on 16 bytes
        {"qkv": (1, 2, 3 * 80), "heads": 1},  # more columns than lanes
        {"qkv": (2, 140, 4 * 16), "heads": 2, "kv_heads": 1},  # fed in pieces: more keys than a turn of all warps
    ]

    def why_not(self, t):
        reasons = {
            f"{t.T} tokens at once; it is made for the few of a decoding step, {TOKENS} at most": t.T > TOKENS,
            f"heads of {t.D} columns; at most {COLUMNS} fit shared memory": t.D > COLUMNS,
            "causal = false": not t.causal,
            "documents": t.documents is not None,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def configs(self, t):
        return [{"WARPS": 4}, {"WARPS": 1}]  # one is enough for few keys, and leaves room for more sequences

    def workspace(self, t):
        """Keys and values where there is no cache."""
        return 2 * t.B * t.T * t.kv_heads * t.D * (t.qkv.nbytes // t.qkv.size)

    def forward(self, t, launch):
        k, v, capacity = t.k, t.v, t.T
        if t.start is None:
            shape = (t.B, t.T, t.kv_heads * t.D)
            k = launch.workspace.part(0, shape, t.qkv.dtype)
            v = launch.workspace.part(k.nbytes, shape, t.qkv.dtype)
        else:
            capacity = t.k.shape[1]
        sizes = (i32(t.T), i32(capacity), i32(t.heads), i32(t.kv_heads), i32(t.window))
        define = {**table(t), "WIDTH": 1, **defined(width(t.D, t.qkv)), **t.config}
        scaling = (f32(t.scale or 1 / math.sqrt(t.D)), f32(t.softcap))
        grid, block = (t.kv_heads, t.B), 32 * t.config["WARPS"]
        launch("decode", t.y, k, v, t.qkv, t.start, *sizes, *scaling, grid=grid, block=block, define=define)
