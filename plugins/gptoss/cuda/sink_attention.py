"""Attention with sinks on CUDA: one warp a query, or a key. Kernels: sink_attention.cu."""

from core import Variant, f32, i32

from ..sink_attention import scale

THREADS = 128
COLUMNS = 4096  # of a head, at most: two rows of sums in shared memory


class SinkAttentionWarp(Variant):
    op, name = "sink_attention", "warp"
    saved = {"lse": "B heads T : acc"}
    reads = ("qkv", "y", "sink")
    can_add = ("qkv",)
    examples = [{"qkv": (1, 40, 3 * 36), "heads": 1, "window": 35}]  # two tiles of keys, more columns than lanes
    uncovered = {
        "float sum = d < D ? sums[d] * old : 0;": "the compiler's copy for tiles without a key, which do not occur"
    }

    def why_not(self, t):
        return f"heads of {t.D} columns; at most {COLUMNS}" if t.D > COLUMNS else None

    def forward(self, t, launch):
        heads, capacity = (i32(t.heads), i32(t.kv_heads), i32(t.D)), i32(0)
        if t.start is not None:
            capacity = i32(t.k.shape[1])
            arguments = (t.k, t.v, t.qkv, t.start, i32(t.T), capacity, *heads)
            launch("append", *arguments, grid=(t.T, t.B), block=THREADS)
        arguments = (t.y, t.lse, t.qkv, t.sink, t.k, t.v, t.start, i32(t.T), capacity, *heads)
        launch("forward", *arguments, i32(t.window), f32(scale(t)), grid=(t.T, t.heads, t.B), block=32, smem=4 * t.D)

    def backward(self, t, launch):
        if t.dsink is not None:
            sizes = (i32(t.B), i32(t.T), i32(t.heads), i32(t.D))
            launch("dsink", t.dsink, t.dy, t.y, t.sink, t.lse, *sizes, i32(t.add_dsink), grid=t.heads, block=THREADS)
        if t.dqkv is None:
            return
        sizes = (i32(t.T), i32(t.heads), i32(t.kv_heads), i32(t.D), i32(t.window))
        arguments = (t.dqkv, t.dy, t.y, t.qkv, t.lse, *sizes, f32(scale(t)), i32(t.add_dqkv))
        launch("dq", *arguments, grid=(t.T, t.heads, t.B), block=32, smem=4 * t.D)
        launch("dkv", *arguments, grid=(t.T, t.kv_heads, t.B), block=32, smem=8 * t.D)
