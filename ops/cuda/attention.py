"""Attention on CUDA: all probabilities in memory, and softmax online in tiles, in float and on tensor cores.

Kernels: attention.cu, attention_flash.cu, attention_flash_backward.cu.
"""

import math

from core import Variant, cdiv, f32, i32

THREADS = 64
ROWS, LANES, WARPS = 16, 32, 4  # of online: queries or keys of a thread block, a tile, warps
SCRATCH = ROWS * LANES  # floats: a tile's weights for each of those rows
WIDEST = 128  # columns of a head: four tiles in shared memory
BLOCKS = 256  # of flash: thread blocks that fill a large chip
# Largest number of columns of a head -> constants of flash's forward and backward (attention_flash.cu explains them):
# as many rows a warp as registers hold sums for, and tiles that leave shared memory for two stages
FLASH = {
    64: (
        {"BLOCKS": 2, "WARPS_I": 4, "WARPS_J": 1, "TILE": 64},
        {"BLOCKS": 2, "WARPS_I": 4, "WARPS_J": 1, "TILE": 32},
    ),
    128: (
        {"BLOCKS": 2, "WARPS_I": 4, "WARPS_J": 1, "TILE": 32},
        {"BLOCKS": 1, "WARPS_I": 4, "WARPS_J": 1, "TILE": 32},
    ),
    256: (
        {"BLOCKS": 1, "WARPS_I": 4, "WARPS_J": 1, "TILE": 32},
        {"BLOCKS": 1, "WARPS_I": 2, "WARPS_J": 2, "TILE": 16},
    ),
}
# fp16 also runs on Turing, whose thread blocks have 64 KB of shared memory
SHAPES = {"bf16": FLASH, "fp16": {64: FLASH[64], 112: (FLASH[128][0], FLASH[256][1]), 128: FLASH[256]}}


class AttentionNaive(Variant):
    """Three kernels, and all T x T scores written and read in between."""

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
    """No score is written: keys and values pass in tiles of shared memory, under a softmax of those seen so far."""

    op, name = "attention", "online"
    saved = {"lse": "B heads T : acc"}
    reads = ("qkv", "y", "documents")
    can_add = ("qkv",)
    examples = [
        {"qkv": (1, 37, 4 * 33), "heads": 2, "kv_heads": 1},  # two tiles, the last one short; two columns a lane
        {"qkv": (1, 50, 3 * 8), "heads": 1, "window": 10},  # tiles on either side of the window
    ]

    def why_not(self, t):
        return f"heads have {t.D} columns; shared memory has room for {WIDEST}" if t.D > WIDEST else None

    def forward(self, t, launch):
        self.append(t, launch)
        launch("online_forward", *forward_arguments(t), **self.tiles(t, t.B * t.heads))

    def append(self, t, launch):
        """While decoding, the new tokens' keys and values join the KV cache first."""
        if t.start is not None:
            cached = (t.start, i32(t.T), i32(t.k.shape[1]), i32(t.heads), i32(t.kv_heads), i32(t.D))
            by_token = over(t.B * t.T, t.kv_heads * t.D)
            launch("naive_append", t.k, t.v, t.qkv, *cached, **by_token, define={"HEAD_DIM": t.D})  # the same module

    def workspace(self, t):
        return t.B * t.heads * t.T * 4

    def backward(self, t, launch):
        if t.dqkv is not None:
            to_dq, to_dkv = backward_arguments(t, launch.workspace)
            launch("online_dq", *to_dq, **self.tiles(t, t.B * t.heads, backward=True))
            launch("online_dkv", *to_dkv, **self.tiles(t, t.B * t.kv_heads, backward=True))

    def tiles(self, t, heads, backward=False):
        """A thread block for each ROWS rows of each head; shared memory for one or two tensors' rows, and two tiles."""
        floats = SCRATCH + (1 + backward) * ROWS * t.D + 2 * LANES * (t.D | 1)
        grid = (heads, cdiv(t.T, ROWS))
        return {"grid": grid, "block": (LANES, WARPS), "smem": 4 * floats, "define": {"HEAD_DIM": t.D}}


class AttentionFlash(AttentionOnline):
    """The same launches, in bf16 or fp16 on tensor cores."""

    name, priority = "flash", 20
    source = ("attention_flash.cu", "attention_flash_backward.cu", "attention.cu")  # the last has the cache's kernel
    dtypes = ("bf16", "fp16")
    examples = [
        {"qkv": (1, 130, 3 * 64), "heads": 1},  # two thread blocks of 128 rows; tiles that no mask touches
        {"qkv": (1, 65, 4 * 72), "heads": 2, "kv_heads": 1, "window": 20},  # half a block of 16 columns is no column
        {"qkv": (1, 33, 3 * 144), "heads": 1, "causal": False},  # warps that share rows, and parts of columns
        {"qkv": (1, 1, 3 * 128), "heads": 1},
        {"qkv": (2, 40, 6 * 8), "heads": 4, "kv_heads": 1, "window": 20, "scale": 0.3, "softcap": 0.75},
        # scores large enough to show a small error of an exponent
        {"qkv": (1, 70, 3 * 16), "documents": (1, 70), "heads": 1, "causal": False, "window": 30, "scale": 1.0},
    ]

    def why_not(self, t):
        widest = max(SHAPES[t.qkv.dtype])
        if widest < t.D:
            return f"heads have {t.D} columns; shared memory and registers have room for {widest} in {t.qkv.dtype}"
        return f"heads have {t.D} columns, not a multiple of 8: rows are not aligned to 16 bytes" if t.D % 8 else None

    def forward(self, t, launch):
        self.append(t, launch)
        launch("flash_forward", *forward_arguments(t), **self.tiles(t, t.B * t.heads))

    def backward(self, t, launch):
        if t.dqkv is not None:
            to_dq, to_dkv = backward_arguments(t, launch.workspace)
            launch("flash_dq", *to_dq, **self.tiles(t, t.B * t.heads, backward=True))
            launch("flash_dkv", *to_dkv, **self.tiles(t, t.B * t.kv_heads, backward=True))

    def configs(self, t):
        """Best guess first: 32 rows a warp where that fills a chip, 16 where it does not, or where 64 rows are all.
        Halved tiles leave room for a second thread block where a multiprocessor has 100 KB of shared memory."""
        if t.D > 128 or t.T <= 64:
            return [{"BLOCKS": 1}]
        few = t.B * t.kv_heads * cdiv(t.T, 128) < BLOCKS
        return [*({"BLOCKS": n} for n in ((1, 2) if few else (2, 1))), {"BLOCKS": 2, "halved": 1}]

    def tiles(self, t, heads, backward=False):
        """A thread block for each `rows` rows of each head; shared memory for one or two tensors' rows, and two stages
        of two tiles. flash_dkv also has two numbers of each row of a tile."""
        shape = next(shapes[backward] for widest, shapes in SHAPES[t.qkv.dtype].items() if widest >= t.D)
        blocks = min(shape["BLOCKS"], t.config["BLOCKS"])
        shape = {**shape, "TILE": max(shape["TILE"] >> t.config.get("halved", 0), 16)}
        rows, columns = 16 * blocks * shape["WARPS_I"], 16 * shape["WARPS_J"]
        pitch = cdiv(t.D, columns) * columns + 8
        elements = pitch * ((1 + backward) * rows + 4 * shape["TILE"]) + 8 * shape["TILE"] * backward
        define = {**shape, "BLOCKS": blocks, "HEAD_DIM": t.D}
        threads = 32 * shape["WARPS_I"] * shape["WARPS_J"]
        return {"grid": heads * cdiv(t.T, rows), "block": threads, "smem": 2 * elements, "define": define}


def forward_arguments(t):
    """Arguments of `online` and of `flash`."""
    sizes = (i32(t.T), i32(t.T if t.start is None else t.k.shape[1]), i32(t.heads), i32(t.kv_heads))
    return t.y, t.lse, t.qkv, t.k, t.v, t.start, t.documents, *sizes, *mask(t), *scaling(t)


def backward_arguments(t, means):
    """Arguments of the two kernels of backward; means: B heads T floats from the first to the second."""
    settings = (i32(t.T), i32(t.heads), i32(t.kv_heads), *mask(t), *scaling(t), i32(t.add_dqkv))
    to_dq = (t.dqkv, means, t.qkv, t.y, t.dy, t.lse, t.documents, *settings)
    return to_dq, (t.dqkv, means, t.qkv, t.dy, t.lse, t.documents, *settings)


def over(rows, columns):
    """One thread for each of rows x columns results."""
    return {"grid": (rows, cdiv(columns, THREADS)), "block": THREADS}


def mask(t):
    return i32(t.causal), i32(t.window)


def scaling(t):
    return f32(t.scale or 1 / math.sqrt(t.D)), f32(t.softcap)
