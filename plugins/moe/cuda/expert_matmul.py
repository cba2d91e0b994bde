"""Grouped matmul on CUDA: one thread a result, tiles of each expert's rows, and these on tensor cores.

Kernels: expert_matmul.cu, expert_matmul_mma.cu.
"""

from core import Variant, cdiv, i32
from core.kernels.mma_product import aligned, candidates, over

TILE = 64  # results of a thread block, each way


class ExpertMatmulNaive(Variant):
    op, name, priority = "expert_matmul", "naive", 0
    reads = ("x", "expert", "weight")
    can_add = ("x",)

    def forward(self, t, launch):
        M, N, K = sizes(t)
        arguments = (t.y, t.x, t.expert, t.weight, i32(M), i32(N), i32(K), i32(t.takers))
        launch("naive_forward", *arguments, **self.over(M, N))

    def backward(self, t, launch):
        M, N, K = sizes(t)
        numbers = (i32(M), i32(N), i32(K), i32(t.takers))
        if t.dx is not None:
            launch("naive_dx", t.dx, t.dy, t.expert, t.weight, *numbers, i32(t.add_dx), **self.over(t.rows, K))
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, t.x, t.expert, *numbers, i32(t.add_dweight))
            launch("naive_dweight", *arguments, **self.over(N, K, t.experts))

    def over(self, rows, columns, layers=1):
        """One thread for each of rows x columns results."""
        return {"grid": (cdiv(rows, 8), cdiv(columns, 32), layers), "block": (32, 8)}


class ExpertMatmulGrouped(Variant):
    op, name = "expert_matmul", "grouped"
    saved = {"order": "B T k : i32", "starts": "experts+1 : i32"}
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [  # two tiles of an expert's rows; two of columns, of the inputs and of the outputs
        {"x": (1, 70, 17), "expert": (1, 70, 2), "experts": 2, "features": 5},
        {"x": (1, 2, 66), "expert": (1, 2, 1), "experts": 1, "features": 66},
    ]
    uncovered = {
        "for (int c = 0; c < 4; c++) {":
            "the compiler's copy of these loops for rows without an order, which the gradient of x never has",
    }  # fmt: skip

    def forward(self, t, launch):
        M, N, K = sizes(t)
        launch("group_rows", t.order, t.starts, t.expert, i32(M), grid=t.experts, block=256)
        arguments = (t.y, t.x, t.weight, t.order, t.starts, i32(t.experts), i32(N), i32(K), i32(t.takers))
        launch("grouped_forward", *arguments, **self.by_group(t, N))

    def workspace(self, t):
        M, _, K = sizes(t)
        return 4 * M * K if t.takers > 1 else 0  # the gradient of x for each taker

    def backward(self, t, launch):
        M, N, K = sizes(t)
        groups = (t.order, t.starts, i32(t.experts), i32(N), i32(K))
        if t.dx is not None and t.takers == 1:
            launch("grouped_dx", t.dx, t.dy, t.weight, *groups, i32(t.add_dx), **self.by_group(t, K))
        elif t.dx is not None:
            parts = launch.workspace
            launch("grouped_parts", parts, t.dy, t.weight, *groups, **self.by_group(t, K))
            self.fold(t, launch, parts)
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, t.x, t.order, t.starts, i32(N), i32(K), i32(t.takers), i32(t.add_dweight))
            launch("grouped_dweight", *arguments, grid=(cdiv(N, TILE), cdiv(K, TILE), t.experts), block=256)

    def fold(self, t, launch, parts):
        """dx: the sum of its parts, one of each taker."""
        arguments = (t.dx, parts, i32(t.rows), i32(t.K), i32(t.takers), i32(t.add_dx))
        launch("grouped_fold", *arguments, grid=cdiv(t.rows * t.K, 128), block=128)

    def by_group(self, t, columns):
        """A thread block for each tile that there may be: every expert may have one that is not full."""
        tiles = min(cdiv(sizes(t)[0], TILE) + t.experts, sizes(t)[0])
        return {"grid": (tiles, cdiv(columns, TILE)), "block": 256}


class ExpertMatmulMma(ExpertMatmulGrouped):
    """The same launches, in bf16 or fp16 on tensor cores."""

    name, priority = "mma", 20
    source = ("expert_matmul_mma.cu", "expert_matmul.cu")
    dtypes = ("bf16", "fp16")
    examples = [
        {"x": (1, 264, 72), "expert": (1, 264, 1), "experts": 2, "features": 136},  # two tiles each way, on 16 bytes
        {"x": (1, 70, 200), "expert": (1, 70, 1), "experts": 2, "features": 8},  # a stage is filled again
        {"x": (1, 70, 17), "expert": (1, 70, 2), "experts": 2, "features": 5},
    ]
    uncovered = {
        "finish(place, held.template piece<WIDE>(turn * DOWN + down, across), old, by_column);": (
            "jumps past the addition to dx in tiles of 128: adding is tried with the first tiles"
        ),
    }

    def configs(self, t):
        M, N, K = sizes(t)
        return candidates(M, min(N, K), t.x.dtype, aligned(t.x, N, K))

    def forward(self, t, launch):
        M, N, K = sizes(t)
        launch("group_rows", t.order, t.starts, t.expert, i32(M), grid=t.experts, block=256)
        arguments = (t.y, t.x, t.weight, t.order, t.starts, i32(t.experts), i32(N), i32(K), i32(t.takers))
        launch("mma_grouped", *arguments, **self.in_tiles(t, N))

    def backward(self, t, launch):
        M, N, K = sizes(t)
        groups = (t.order, t.starts, i32(t.experts), i32(N), i32(K))
        if t.dx is not None and t.takers == 1:
            launch("mma_grouped_dx", t.dx, t.dy, t.weight, *groups, i32(t.add_dx), **self.in_tiles(t, K))
        elif t.dx is not None:
            parts = launch.workspace
            launch("mma_grouped_parts", parts, t.dy, t.weight, *groups, **self.in_tiles(t, K))
            self.fold(t, launch, parts)
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, t.x, t.order, t.starts, i32(N), i32(K), i32(t.takers), i32(t.add_dweight))
            how = over(t.config, N, K, t.x, N, K)
            launch("mma_grouped_dweight", *arguments, **{**how, "grid": (how["grid"], t.experts)})

    def in_tiles(self, t, columns):
        """A thread block for each tile that there may be: every expert may have one that is not full."""
        M, N, K = sizes(t)
        height = t.config["TILE_I"]
        how = over(t.config, M, columns, t.x, N, K)
        return {**how, "grid": (min(cdiv(M, height) + t.experts, M), cdiv(columns, t.config["TILE_J"]))}


def sizes(t):
    """M, N, K: rows of y, outputs, inputs."""
    return t.B * t.T * t.k, t.features, t.K
