"""Matmul on tensor cores, in bf16, from Ampere on, and the launches that fused ops share. Kernels: matmul_mma.cu."""

import math

from core import Variant, cdiv, i32

# What TILE_I .. WARPS_J are in the kernels. Large tiles use an element more often, small ones give more thread blocks.
WIDE = {"TILE_I": 128, "TILE_J": 128, "TILE_K": 32, "STAGES": 4, "WARPS_I": 2, "WARPS_J": 2}
SMALL = {"TILE_I": 64, "TILE_J": 64, "TILE_K": 64, "STAGES": 3, "WARPS_I": 2, "WARPS_J": 2}
BLOCKS = 256  # thread blocks that fill a large chip
SLICE = 512  # rows, at least, of a slice of a weight gradient


class MatmulMma(Variant):
    op, name, priority = "matmul", "mma", 20
    source = "matmul_mma.cu"
    dtypes = ("bf16",)
    arch = "sm_80+"
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [
        {"x": (65, 72), "features": 136},  # two tiles each way, all on 16 bytes
        {"x": (1030, 17), "features": 9},  # three slices of rows
    ]

    def configs(self, t):
        return candidates(t.rows, t.features)

    def workspace(self, t):
        return partial_bytes(t.config, t.rows, t.features, t.K)

    def counters(self, t):
        return tiles(t.config, t.features, t.K)

    def forward(self, t, launch):
        launch_forward(launch, t.config, t.y, t.x, t.weight, t.bias)

    def backward(self, t, launch):
        if t.dx is not None:
            launch_dx(launch, t.config, t.dx, t.dy, t.weight, t.add_dx)
        launch_dweight(launch, t.config, t.dweight, t.dbias, t.dy, t.x, t.add_dweight, t.add_dbias)


def candidates(rows, columns):
    """Tile candidates, best guess first: small ones where large ones are too few to fill a chip."""
    few = tiles(WIDE, rows, columns) < BLOCKS // 2
    return [SMALL, WIDE] if few else [WIDE, SMALL]


def tiles(config, rows, columns):
    return cdiv(rows, config["TILE_I"]) * cdiv(columns, config["TILE_J"])


def slices(config, rows, features, K):
    """(slices of a weight gradient's rows, rows of one): as many as fill a chip, from shapes alone."""
    wanted = min(cdiv(BLOCKS, tiles(config, features, K)), cdiv(rows, SLICE))
    each = cdiv(cdiv(rows, wanted), config["TILE_K"]) * config["TILE_K"]
    return cdiv(rows, each), each


def partial_bytes(config, rows, features, K):
    """What the slices of a weight gradient leave for each other; 0 for a single one."""
    count, _ = slices(config, rows, features, K)
    sums = config["TILE_I"] * config["TILE_J"] + 4 * config["TILE_I"] * 2 * config["WARPS_J"]
    return 0 if count == 1 else 4 * sums * tiles(config, features, K) * count


def launch_forward(launch, config, y, x, weight, bias=None, r=None):
    """y = x weight^T + bias + r."""
    M, N, K = sizes(x, weight)
    arguments = (y, x, weight, bias, r, i32(M), i32(N), i32(K), i32(aligned(N, K)))
    launch("mma_forward", *arguments, **over(config, M, N))


def launch_dx(launch, config, dx, dy, weight, add=False):
    """dx = dy weight, added if `add`."""
    M, N, K = sizes(dx, weight)
    arguments = (dx, dy, weight, i32(M), i32(N), i32(K), i32(add), i32(aligned(N, K)))
    launch("mma_dx", *arguments, **over(config, M, K))


def launch_dweight(launch, config, dweight, dbias, dy, x, add=False, add_bias=False):
    """dweight = dy^T x and dbias = sum of dy; either may be None. Takes the launch's workspace and counters."""
    if dweight is None and dbias is None:
        return
    N, K = dy.shape[-1], x.shape[-1]
    M = math.prod(x.shape[:-1])
    count, each = slices(config, M, N, K)
    how = over(config, N, K if dweight is not None else 1)  # dbias alone needs one column of tiles
    how["grid"] = (how["grid"], count)
    numbers = (M, N, K, each, add, add_bias, aligned(N, K))
    tensors = (dweight, dbias, dy, x, launch.workspace, launch.counters)
    launch("mma_dweight", *tensors, *(i32(n) for n in numbers), **how)


def over(config, rows, columns):
    """A thread block for each tile of rows x columns results."""
    threads = 32 * config["WARPS_I"] * config["WARPS_J"]
    stage = 2 * (config["TILE_I"] + config["TILE_J"]) * config["TILE_K"]
    return {
        "grid": tiles(config, rows, columns), "block": threads, "smem": stage * config["STAGES"], "define": config
    }  # fmt: skip


def sizes(x, weight):
    """M, N, K: rows, outputs, inputs."""
    return math.prod(x.shape[:-1]), *weight.shape


def aligned(*widths):
    """Whether rows of these many bf16 all start on 16 bytes."""
    return all(n % 8 == 0 for n in widths)
