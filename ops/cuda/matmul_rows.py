"""Matmul of a few rows on CUDA, as decoding has them, and the ops that are fused with it. Kernel: matmul_rows.cu."""

import math

from core import Variant, cdiv, i32
from core.kernels.width import WIDEST

MOST = 16  # rows
WARPS = 4
BLOCKS = 256  # thread blocks that fill a large chip
LEAST = 2  # loads of a warp, at least, in a slice of the depth
FEATURES = (32, 16, 8)  # rows of the weight of a thread block: x is read once for all of them
TURNS = dict.fromkeys(
    (
        "for (int own = threadIdx.x; own < RESULTS; own += 32 * WARPS) first[blockIdx.y * RESULTS + own] = sums[own];",
        "for (int own = threadIdx.x; own < RESULTS; own += 32 * WARPS) {",
    ),
    "slices of the depth come with 8 features: at most as many results as threads",
)


class MatmulRows(Variant):
    """The weight is read once, by the whole chip: slices of the depth are added in a fixed order. Forward only."""

    op, name, priority = "matmul", "rows", 30
    source = "matmul_rows.cu"
    backward = None
    examples = [
        {"x": (1, 80), "features": 9},  # the last load of a row is short
        {"x": (3, 528), "features": 16, "bias": False},  # two slices of the depth
        {"x": (9, 8), "features": 8168},  # more rows than 8; features that are enough for large thread blocks
        {"x": (16, 8), "features": 3},
    ]

    uncovered = TURNS

    def why_not(self, t):
        return refused(t.x, t.rows, t.K)

    def workspace(self, t):
        return Split(t.x, t.features, t.K).partial_bytes(t.rows)

    def counters(self, t):
        return Split(t.x, t.features, t.K).blocks

    def forward(self, t, launch):
        launch_rows(launch, t.y, t.x, t.weight, t.bias)


class MatmulAddRows(MatmulRows):
    """The residual is added before the result is rounded."""

    op = "matmul_add"
    examples = [
        {"x": (1, 80), "r": (1, 9)},
        {"x": (3, 528), "r": (3, 16), "bias": False},
        {"x": (9, 8), "r": (9, 8168)},
        {"x": (16, 8), "r": (16, 3)},
    ]

    def forward(self, t, launch):
        launch_rows(launch, t.y, t.x, t.weight, t.bias, t.r)


class MlpGeluRows(Variant):
    """Two launches; GELU comes after the sum of the first."""

    op, name, priority = "mlp_gelu", "rows", 30
    source = "matmul_rows.cu"
    backward = None
    examples = [
        {"x": (1, 80), "r": (1, 9), "weight1": (24, 80)},
        {"x": (9, 528), "r": (9, 16), "weight1": (528, 528)},  # slices of the depth of both
        {"x": (9, 8), "r": (9, 16), "weight1": (8168, 8), "approx": "erf"},
    ]

    uncovered = TURNS

    def why_not(self, t):
        return refused(t.x, t.rows, t.K) or refused(t.x, t.rows, t.hidden)

    def workspace(self, t):
        return self.bytes(t) + max(half.partial_bytes(t.rows) for half in self.halves(t))

    def counters(self, t):
        return max(half.blocks for half in self.halves(t))

    def halves(self, t):
        return Split(t.x, t.hidden, t.K), Split(t.x, t.features, t.hidden)

    def bytes(self, t):
        """Bytes of the activations between the two launches, rounded up to the alignment of the partial sums."""
        return cdiv(t.rows * t.hidden * 16 // WIDEST[t.x.dtype], 256) * 256

    def forward(self, t, launch):
        a, partial = launch.workspace.part(0, (t.rows, t.hidden), t.x.dtype), launch.workspace[self.bytes(t) :]
        launch_rows(launch, a, t.x, t.weight1, t.bias1, gelu=1 + (t.approx == "erf"), partial=partial)
        launch_rows(launch, t.y, a, t.weight2, t.bias2, t.r, partial=partial)


def refused(x, rows, depth):
    """The reason why this kernel does not take `rows` rows of this depth, or None."""
    if rows > MOST:
        return f"{rows} rows; the limit is {MOST}, tiled variants take more"
    wide = WIDEST[x.dtype]
    return (
        f"rows have {depth} elements, not a multiple of {wide}: not all are aligned to 16 bytes"
        if depth % wide
        else None
    )


class Split:
    """A product's thread blocks: as few as fill a chip, since each reads x; slices of the depth where the features are
    too few. wide: features of a thread block; blocks: of all features; slices: of the depth."""

    def __init__(self, x, features, depth):
        most = max(cdiv(depth, 4 * WIDEST[x.dtype]) // (WARPS * LEAST), 1)
        self.wide = next((n for n in FEATURES if cdiv(features, n) >= BLOCKS), FEATURES[-1])
        self.blocks = cdiv(features, self.wide)
        self.slices = min(cdiv(BLOCKS, self.blocks), most)

    def partial_bytes(self, rows):
        """Bytes of the sums of all slices; 0 for a single one."""
        return 0 if self.slices == 1 else 4 * self.blocks * self.slices * self.wide * held_rows(rows)


def held_rows(rows):
    """The number of rows that the kernel is compiled for: 1, 2, 4, 8 or 16."""
    return next(n for n in (1, 2, 4, 8, 16) if n >= rows)


def launch_rows(launch, y, x, weight, bias=None, r=None, gelu=0, partial=None):
    """y = x weight^T + bias + r, with gelu (1: as GPT-2 approximates it, 2: by erf) of it."""
    N, K = weight.shape
    M, split = math.prod(x.shape[:-1]), Split(x, N, K)
    define = {"FEATURES": split.wide, "ROWS": held_rows(M), "WARPS": WARPS, "GELU": gelu}
    scratch = launch.workspace if partial is None else partial
    tensors = (y, x, weight, bias, r, scratch, launch.counters)
    grid = (split.blocks, split.slices)
    launch("rows_forward", *tensors, i32(M), i32(N), i32(K), grid=grid, block=32 * WARPS, define=define)
