"""Attention on CUDA: all probabilities in memory, and softmax online in tiles. Kernels: attention.cu."""

import math

from core import Variant, cdiv, f32, i32

THREADS = 64
ROWS, LANES, WARPS = 16, 32, 4  # of online: queries or keys of a thread block, a tile, warps
SCRATCH = ROWS * LANES  # floats: a tile's weights for each of those rows
WIDEST = 128  # columns of a head: four tiles in shared memory


class AttentionNaive(Variant):
    op, name, priority = "attention", "naive", 0
    saved = {"p": "B heads T T : acc"}
    reads = ("qkv", "y")
    can_add = ("qkv",)
    examples = [{"qkv": (1, 67, 3), "heads": 1}, {"qkv": (1, 2, 3 * 67), "heads": 1}]  # two thread blocks each way

    def forward(self, t, launch):
        sizes, by_query = (i32(t.T), i32(t.heads), i32(t.kv_heads), i32(t.D)), t.B * t.heads * t.T
        if t.start is not None:
            self.decode(t, launch, by_query)
            return
        arguments = (t.p, t.qkv, t.documents, i32(t.B), *sizes, *mask(t), *scaling(t))
        launch("naive_scores", *arguments, **over(by_query, t.T))
        launch("naive_softmax", t.p, i32(by_query), i32(t.T), grid=cdiv(by_query, THREADS), block=THREADS)
        launch("naive_y", t.y, t.p, t.qkv, i32(t.B), *sizes, **over(by_query, t.D))

    def decode(self, t, launch, by_query):
        cached = (t.start, i32(t.T), i32(t.k.shape[1]), i32(t.heads), i32(t.kv_heads), i32(t.D))
        launch("naive_append", t.k, t.v, t.qkv, *cached, **over(t.B * t.T, t.kv_heads * t.D))
        arguments = (t.y, t.qkv, t.k, t.v, *cached, *mask(t), *scaling(t))
        launch("naive_decode", *arguments, **over(by_query, t.D))

    def workspace(self, t):
        return t.B * t.heads * t.T * t.T * 4

    def backward(self, t, launch):
        if t.dqkv is None:
            return
        ds, by_query, add = launch.workspace, t.B * t.heads * t.T, i32(t.add_dqkv)
        sizes = (i32(t.B), i32(t.T), i32(t.heads), i32(t.kv_heads), i32(t.D))
        launch("naive_ds", ds, t.p, t.qkv, t.y, t.dy, *sizes, *scaling(t), **over(by_query, t.T))
        launch("naive_dq", t.dqkv, ds, t.qkv, *sizes, add, **over(by_query, t.D))
        launch("naive_dkv", t.dqkv, t.p, ds, t.qkv, t.dy, *sizes, add, **over(t.B * t.kv_heads * t.T, t.D))


class AttentionOnline(Variant):
    op, name = "attention", "online"
    saved = {"lse": "B heads T : acc"}
    reads = ("qkv", "y", "documents")
    can_add = ("qkv",)
    examples = [
        {"qkv": (1, 37, 4 * 33), "heads": 2, "kv_heads": 1},  # two tiles, the last one short; two columns a lane
        {"qkv": (1, 50, 3 * 8), "heads": 1, "window": 10},  # tiles on either side of the window
    ]

    def why_not(self, t):
        return f"heads of {t.D} columns; at most {WIDEST} fit shared memory" if t.D > WIDEST else None

    def forward(self, t, launch):
        capacity = t.T
        if t.start is not None:
            capacity = t.k.shape[1]
            cached = (t.start, i32(t.T), i32(capacity), i32(t.heads), i32(t.kv_heads), i32(t.D))
            by_token = over(t.B * t.T, t.kv_heads * t.D)
            launch("naive_append", t.k, t.v, t.qkv, *cached, **by_token, define={"HEAD_DIM": t.D})  # the same module
        sizes = (i32(t.T), i32(capacity), i32(t.heads), i32(t.kv_heads))
        arguments = (t.y, t.lse, t.qkv, t.k, t.v, t.start, t.documents, *sizes, *mask(t), *scaling(t))
        launch("online_forward", *arguments, **self.tiles(t, t.B * t.heads, own=1))

    def workspace(self, t):
        return t.B * t.heads * t.T * 4

    def backward(self, t, launch):
        if t.dqkv is None:
            return
        means = launch.workspace
        settings = (i32(t.T), i32(t.heads), i32(t.kv_heads), *mask(t), *scaling(t), i32(t.add_dqkv))
        arguments = (t.dqkv, means, t.qkv, t.y, t.dy, t.lse, t.documents, *settings)
        launch("online_dq", *arguments, **self.tiles(t, t.B * t.heads, own=2))
        arguments = (t.dqkv, means, t.qkv, t.dy, t.lse, t.documents, *settings)
        launch("online_dkv", *arguments, **self.tiles(t, t.B * t.kv_heads, own=2))

    def tiles(self, t, heads, own):
        """A thread block for each ROWS rows of each head; shared memory for `own` tensors of its rows and two tiles."""
        floats = SCRATCH + own * ROWS * t.D + 2 * LANES * (t.D | 1)
        grid = (heads, cdiv(t.T, ROWS))
        return {"grid": grid, "block": (LANES, WARPS), "smem": 4 * floats, "define": {"HEAD_DIM": t.D}}


def over(rows, columns):
    """One thread for each of rows x columns results."""
    return {"grid": (rows, cdiv(columns, THREADS)), "block": THREADS}


def mask(t):
    return i32(t.causal), i32(t.window)


def scaling(t):
    return f32(t.scale or 1 / math.sqrt(t.D)), f32(t.softcap)
