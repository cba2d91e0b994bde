"""Matmul on tensor cores, bf16 or TF32, from Ampere on, and the ops that are fused with it. Kernels: matmul_mma.cu."""

import math

from core import Variant, cdiv, i32
from core.kernels.width import WIDEST

# What TILE_I .. WARPS_J are in the kernels. Large tiles use an element more often, small ones give more thread blocks.
WIDE = {"TILE_I": 128, "TILE_J": 128, "TILE_K": 32, "STAGES": 4, "WARPS_I": 2, "WARPS_J": 2}
SMALL = {"TILE_I": 64, "TILE_J": 64, "TILE_K": 64, "STAGES": 3, "WARPS_I": 2, "WARPS_J": 2}
BLOCKS = 256  # thread blocks that fill a large chip
SLICE = 512  # rows, at least, of a slice of a weight gradient


class MatmulMma(Variant):
    """Tensor cores, fed by copies that run ahead: a sixth of the instructions of `tiled`, and nothing is transposed."""

    op, name, priority = "matmul", "mma", 20
    source = "matmul_mma.cu"
    tf32 = True
    arch = "sm_80+"
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [
        {"x": (65, 72), "features": 136},  # two tiles each way, all on 16 bytes
        {"x": (1030, 17), "features": 9},  # three slices of rows
    ]

    def configs(self, t):
        return candidates(t.rows, t.features, t.x.dtype)

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


class MatmulAddMma(MatmulMma):
    """The residual is added before the result is rounded and written, and read nowhere else."""

    op = "matmul_add"
    can_add = ("x", "r")
    alias = {"dr": "dy"}
    examples = [
        {"x": (65, 72), "r": (65, 136)},  # two tiles each way, all on 16 bytes
        {"x": (515, 17), "r": (515, 9)},  # two slices of rows
        {"x": (2, 8), "r": (2, 264)},  # more columns than a thread block of dr has
    ]

    def forward(self, t, launch):
        launch_forward(launch, t.config, t.y, t.x, t.weight, t.bias, t.r)

    def backward(self, t, launch):
        launch_dr(launch, t)
        super().backward(t, launch)


class MlpGeluMma(Variant):
    """Keeps what comes into GELU and what comes out of it; df, the largest gradient, is in the workspace."""

    op, name, priority = "mlp_gelu", "mma", 20
    source = "matmul_mma.cu"
    tf32 = True
    tolerance = {"f32": 2e-3}
    tolerance_why = "what one product rounds to TF32, the next one rounds again"
    arch = "sm_80+"
    saved = {"f": "... hidden", "a": "... hidden"}
    reads = ("x", "weight1", "weight2")
    can_add = ("x", "r")
    alias = {"dr": "dy"}
    examples = [
        {"x": (65, 72), "r": (65, 136), "weight1": (80, 72)},  # two tiles each way, all on 16 bytes
        {"x": (515, 17), "r": (515, 9), "weight1": (7, 17)},  # two slices of rows
        {"x": (2, 8), "r": (2, 264), "weight1": (3, 8)},  # more columns than a thread block of dr has
    ]

    def configs(self, t):
        return candidates(t.rows, min(t.hidden, t.features), t.x.dtype)

    def workspace(self, t):
        first, second = ((t.hidden, t.K), (t.features, t.hidden))
        return df_bytes(t) + max(partial_bytes(t.config, t.rows, *shape) for shape in (first, second))

    def counters(self, t):
        return max(tiles(t.config, t.hidden, t.K), tiles(t.config, t.features, t.hidden))

    def forward(self, t, launch):
        M, N, K = sizes(t.x, t.weight1)
        numbers = (M, N, K, t.approx == "erf", aligned(t.x, N, K))
        how = over(t.config, M, N, t.x)
        launch("mma_gelu", t.a, t.f, t.x, t.weight1, t.bias1, *(i32(n) for n in numbers), **how)
        launch_forward(launch, t.config, t.y, t.a, t.weight2, t.bias2, t.r)

    def backward(self, t, launch):
        launch_dr(launch, t)
        work = launch.workspace
        df = work.part(0, t.f.shape, t.f.dtype)
        partial = work[df_bytes(t) :]
        flags = t.add_dweight2, t.add_dbias2
        launch_dweight(launch, t.config, t.dweight2, t.dbias2, t.dy, t.a, *flags, partial=partial)
        if t.dx is None and t.dweight1 is None and t.dbias1 is None:
            return
        M, N, K = sizes(t.a, t.weight2)
        numbers = (M, N, K, t.approx == "erf", aligned(t.dy, N, K))
        launch("mma_dgelu", df, t.dy, t.weight2, t.f, *(i32(n) for n in numbers), **over(t.config, M, K, t.dy))
        flags = t.add_dweight1, t.add_dbias1
        launch_dweight(launch, t.config, t.dweight1, t.dbias1, df, t.x, *flags, partial=partial)
        if t.dx is not None:
            launch_dx(launch, t.config, t.dx, df, t.weight1, t.add_dx)


def df_bytes(t):
    """Of the gradient of what comes into GELU, up to where the next tensor may start."""
    return cdiv(bytes_each(t.x) * t.rows * t.hidden, 256) * 256


def candidates(rows, columns, dtype="bf16"):
    """Tile candidates, best guess first: small ones where large ones are too few to fill a chip. A stage has the same
    bytes in f32, and half the depth."""
    few = tiles(WIDE, rows, columns) < BLOCKS // 2
    shallow = WIDEST["bf16"] // WIDEST[dtype]
    return [{**c, "TILE_K": c["TILE_K"] // shallow} for c in ((SMALL, WIDE) if few else (WIDE, SMALL))]


def tiles(config, rows, columns):
    return cdiv(rows, config["TILE_I"]) * cdiv(columns, config["TILE_J"])


def slices(config, rows, features, K):
    """(slices of a weight gradient's rows, rows of one): as many as fill a chip, from shapes alone."""
    wanted = min(cdiv(BLOCKS, tiles(config, features, K)), cdiv(rows, SLICE))
    each = cdiv(cdiv(rows, wanted), config["TILE_K"]) * config["TILE_K"]
    return cdiv(rows, each), each


def partial_bytes(config, rows, features, K):
    """Bytes of the partial sums of a weight gradient's slices; 0 for a single slice."""
    count, _ = slices(config, rows, features, K)
    sums = config["TILE_I"] * config["TILE_J"] + 4 * config["TILE_I"] * 2 * config["WARPS_J"]
    return 0 if count == 1 else 4 * sums * tiles(config, features, K) * count


def launch_forward(launch, config, y, x, weight, bias=None, r=None):
    """y = x weight^T + bias + r."""
    M, N, K = sizes(x, weight)
    arguments = (y, x, weight, bias, r, i32(M), i32(N), i32(K), i32(aligned(x, N, K)))
    launch("mma_forward", *arguments, **over(config, M, N, x))


def launch_dx(launch, config, dx, dy, weight, add=False):
    """dx = dy weight, added if `add`."""
    M, N, K = sizes(dx, weight)
    arguments = (dx, dy, weight, i32(M), i32(N), i32(K), i32(add), i32(aligned(dy, N, K)))
    launch("mma_dx", *arguments, **over(config, M, K, dy))


def launch_dr(launch, t):
    """dr = dy, unless the one is the other."""
    if t.dr is not None:
        N = t.dy.shape[-1]
        grid = (t.rows, cdiv(N, 256))
        launch("mma_dr", t.dr, t.dy, i32(N), i32(t.add_dr), grid=grid, block=256, define=t.config)


def launch_dweight(launch, config, dweight, dbias, dy, x, add=False, add_bias=False, partial=None):
    """dweight = dy^T x and dbias = sum of dy; either may be None. partial: scratch, by default the whole workspace."""
    if dweight is None and dbias is None:
        return
    N, K = dy.shape[-1], x.shape[-1]
    M = math.prod(x.shape[:-1])
    count, each = slices(config, M, N, K)
    how = over(config, N, K if dweight is not None else 1, x)  # dbias alone needs one column of tiles
    how["grid"] = (how["grid"], count)
    numbers = (M, N, K, each, add, add_bias, aligned(x, N, K))
    scratch = launch.workspace if partial is None else partial
    tensors = (dweight, dbias, dy, x, scratch, launch.counters)
    launch("mma_dweight", *tensors, *(i32(n) for n in numbers), **how)


def over(config, rows, columns, operand):
    """A thread block for each tile of rows x columns results; shared memory for stages of the operands' type."""
    threads = 32 * config["WARPS_I"] * config["WARPS_J"]
    stage = bytes_each(operand) * (config["TILE_I"] + config["TILE_J"]) * config["TILE_K"]
    return {
        "grid": tiles(config, rows, columns), "block": threads, "smem": stage * config["STAGES"], "define": config
    }  # fmt: skip


def sizes(x, weight):
    """M, N, K: rows, outputs, inputs."""
    return math.prod(x.shape[:-1]), *weight.shape


def aligned(tensor, *widths):
    """Whether rows of these many of its elements all start on 16 bytes."""
    return all(n % WIDEST[tensor.dtype] == 0 for n in widths)


def bytes_each(tensor):
    """Of an element."""
    return 16 // WIDEST[tensor.dtype]
