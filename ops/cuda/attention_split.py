"""Attention of a few queries over a long cache on CUDA. Kernel: attention_split.cu."""

from core import cdiv, i32
from core.kernels.width import WIDEST

from .attention import AttentionOnline, scaling

MOST = 16  # queries that share keys
ROWS = 8  # of a thread block, at most
WARPS = 4
BLOCKS = 512  # thread blocks that fill a large chip
KEYS = 128  # of a slice, at least


class AttentionSplit(AttentionOnline):
    """The cache is read once, by the whole chip: slices of it are joined in a fixed order. Decoding only."""

    name, priority = "split", 30
    source = ("attention_split.cu", "attention.cu")  # the second has the cache's kernel
    saved = {}
    backward = None
    examples = [
        {"qkv": (1, 300, 6 * 40), "heads": 4, "kv_heads": 1},  # three slices, of more results than threads
        {"qkv": (2, 40, 6 * 64), "heads": 4, "kv_heads": 1, "window": 20, "scale": 0.3, "softcap": 0.75},
        {"qkv": (1, 9, 11 * 24), "heads": 9, "kv_heads": 1},  # more queries than a thread block has
        {"qkv": (1, 20, 3 * 256), "heads": 1},  # in f32, two parts of a key a lane
    ]

    def why_not(self, t):
        queries, wide = t.T * t.heads // t.kv_heads, WIDEST[t.qkv.dtype]
        if t.start is None:
            return "no KV cache: all tokens are computed at once"
        if t.documents is not None:
            return "documents: a KV cache does not store them"
        if queries > MOST:
            return f"{queries} queries share a key; the limit is {MOST}, tiled variants take more"
        if t.D > 256:
            return f"heads have {t.D} columns; registers have room for 256"
        return (
            f"heads have {t.D} columns, not a multiple of {wide}: rows are not aligned to 16 bytes"
            if t.D % wide
            else None
        )

    def slices(self, t):
        """The number of slices of the cache."""
        return min(cdiv(BLOCKS, t.B * t.kv_heads), cdiv(t.k.shape[1], KEYS))

    def rows(self, t):
        """Queries of a thread block: a power of two."""
        return next(n for n in (1, 2, 4, ROWS) if n >= min(t.T * t.heads // t.kv_heads, ROWS))

    def groups(self, t):
        return cdiv(t.T * t.heads // t.kv_heads, self.rows(t))

    def workspace(self, t):
        slices = self.slices(t)
        return 0 if slices == 1 else 4 * self.counters(t) * slices * self.rows(t) * (t.D + 2)

    def counters(self, t):
        return t.B * t.kv_heads * self.groups(t)

    def forward(self, t, launch):
        self.append(t, launch)
        sizes = (i32(t.T), i32(t.k.shape[1]), i32(t.heads), i32(t.kv_heads), i32(t.window))
        tensors = (t.y, t.qkv, t.k, t.v, t.start, launch.workspace, launch.counters)
        grid = (t.B * t.kv_heads, self.slices(t), self.groups(t))
        define = {"HEAD_DIM": t.D, "ROWS": self.rows(t), "WARPS": WARPS}
        launch("split_decode", *tensors, *sizes, *scaling(t), grid=grid, block=32 * WARPS, define=define)
