"""Matmul on tensor cores, and the ops that are fused with it.

Kernels: matmul_mma.cu, matmul_mma_dweight.cu, mlp_gelu_mma.cu.
"""

import math

from core import Variant, cdiv, i32
from core.kernels.mma_product import BLOCKS, WIDE, aligned, bytes_each, candidates, lower, over, square, tiles

KERNELS = ("matmul_mma.cu", "matmul_mma_dweight.cu")
SLICE = 512  # rows, at least, of a slice of a weight gradient
PLACES = (216, 264)  # thread blocks that run at once on an A100 and on an H100
# the same for an RTX 3090, an RTX 4090, an L40S, a B200 and an RTX 5090, for choices by tuning
OTHERS = (164, 256, 284, 296, 340)
MORE = 0.01  # a slice's share of the time, for its sums, which are written and read once more


class MatmulMma(Variant):
    """Tensor cores, fed by copies that run ahead: a twelfth of `tiled`'s instructions, and nothing is transposed."""

    op, name, priority = "matmul", "mma", 20
    source = KERNELS
    tf32 = True
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [
        {"x": (256, 40), "features": 256},  # whole tiles alone
        {"x": (263, 72), "features": 136},  # two tiles each way, all on 16 bytes
        {"x": (1030, 17), "features": 9},  # three slices of rows
    ]

    def configs(self, t):
        tiles = candidates(t.rows, t.features, t.x.dtype, aligned(t.x, t.features, t.K))
        return sliced(tiles, t.rows, t.features, t.K)

    def workspace(self, t):
        return partial_bytes(t.config, t.rows, t.features, t.K)

    def counters(self, t):
        return tiles(square(t.config), t.features, t.K)

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
        {"x": (263, 72), "r": (263, 136)},  # two tiles each way, all on 16 bytes
        {"x": (515, 17), "r": (515, 9)},  # two slices of rows
        {"x": (2, 8), "r": (2, 264)},  # more columns than a thread block of dr has
    ]

    def forward(self, t, launch):
        launch_forward(launch, t.config, t.y, t.x, t.weight, t.bias, t.r)

    def backward(self, t, launch):
        launch_dr(launch, t)
        super().backward(t, launch)


class MlpGeluMma(Variant):
    """Backward reads GELU's saved input and output; df, the largest gradient, is in the workspace."""

    op, name, priority = "mlp_gelu", "mma", 20
    source = (*KERNELS, "mlp_gelu_mma.cu")
    tf32 = True
    tolerance = {"f32": 2e-3}
    tolerance_why = "what one product rounds to TF32, the next one rounds again"
    saved = {"f": "... hidden", "a": "... hidden"}
    reads = ("x", "weight1", "weight2")
    can_add = ("x", "r")
    alias = {"dr": "dy"}
    examples = [
        {"x": (263, 72), "r": (263, 136), "weight1": (136, 72)},  # two tiles each way, all on 16 bytes
        {"x": (515, 17), "r": (515, 9), "weight1": (7, 17)},  # two slices of rows
        {"x": (2, 8), "r": (2, 264), "weight1": (3, 8)},  # more columns than a thread block of dr has
    ]

    def configs(self, t):
        on_16 = aligned(t.x, t.hidden, t.features, t.K)
        tiles = candidates(t.rows, min(t.hidden, t.features), t.x.dtype, on_16)
        return sliced(tiles, t.rows, t.hidden, t.K)

    def workspace(self, t):
        first, second = ((t.hidden, t.K), (t.features, t.hidden))
        return df_bytes(t) + max(partial_bytes(t.config, t.rows, *shape) for shape in (first, second))

    def counters(self, t):
        return max(tiles(square(t.config), t.hidden, t.K), tiles(square(t.config), t.features, t.hidden))

    def forward(self, t, launch):
        M, N, K = sizes(t.x, t.weight1)
        how = self.with_gelu(t, over(t.config, M, N, t.x, N, K))
        launch("mma_gelu", t.a, t.f, t.x, t.weight1, t.bias1, i32(M), i32(N), i32(K), **how)
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
        how = self.with_gelu(t, over(t.config, M, K, t.dy, N, K))
        launch("mma_dgelu", df, t.dy, t.weight2, t.f, i32(M), i32(N), i32(K), **how)
        flags = t.add_dweight1, t.add_dbias1
        launch_dweight(launch, t.config, t.dweight1, t.dbias1, df, t.x, *flags, partial=partial)
        if t.dx is not None:
            launch_dx(launch, t.config, t.dx, df, t.weight1, t.add_dx)

    def with_gelu(self, t, how):
        """A launch whose kernel has GELU: by erf, or as GPT-2 approximates it."""
        return {**how, "define": {**how["define"], "EXACT": int(t.approx == "erf")}}


def df_bytes(t):
    """Bytes of the gradient of GELU's input, rounded up to the alignment of the next tensor."""
    return cdiv(bytes_each(t.x) * t.rows * t.hidden, 256) * 256


def slices(config, rows, features, K):
    """(slices of a weight gradient's rows, rows of one): those of the config, else from shapes alone."""
    most = cdiv(rows, SLICE)
    wanted = min(config.get("slices") or best_slices(tiles(square(config), features, K), most, PLACES), most)
    each = cdiv(cdiv(rows, wanted), config["TILE_K"]) * config["TILE_K"]
    return cdiv(rows, each), each


def best_slices(count, most, places):
    """The number of slices, at most `most`, that leaves least of the chips idle in the last wave of thread blocks.
    count: tiles; places: thread blocks that run at once on each chip."""

    def time(slices):
        return sum(cdiv(count * slices, n) for n in places) / slices * (1 + MORE * slices)

    return min(range(1, min(cdiv(BLOCKS, count) + 2, most) + 1), key=time)


def sliced(configs, rows, features, K):
    """The candidates with the usual slices of a weight gradient; then the first ones with those that would be best for
    one chip alone, which are other bits; then the first ones with fewer rows a tile."""
    first, most = configs[0], cdiv(rows, SLICE)
    count = tiles(first, features, K)
    usual = best_slices(count, most, PLACES)
    numbers = {best_slices(count, most, (n,)) for n in (*PLACES, *OTHERS)} - {usual}
    made = [*configs, *({**first, "slices": n} for n in sorted(numbers))]
    others = lower(configs)[len(configs) :]
    if first["TILE_I"] < WIDE["TILE_I"]:  # such tiles are too few for this size
        return [*made, *others]
    return [*made, *({**c, **more} for c in others for more in ({}, *({"slices": n} for n in sorted(numbers))))]


def partial_bytes(config, rows, features, K):
    """Bytes of the partial sums of a weight gradient's slices; 0 for a single slice."""
    count, _ = slices(config, rows, features, K)
    config = square(config)
    sums = config["TILE_I"] * config["TILE_J"] + 4 * config["TILE_I"] * config["WARPS_J"]
    return 0 if count == 1 else 4 * sums * tiles(config, features, K) * count


def launch_forward(launch, config, y, x, weight, bias=None, r=None):
    """y = x weight^T + bias + r."""
    M, N, K = sizes(x, weight)
    launch("mma_forward", y, x, weight, bias, r, i32(M), i32(N), i32(K), **over(config, M, N, x, N, K))


def launch_dx(launch, config, dx, dy, weight, add=False):
    """dx = dy weight, added if `add`."""
    M, N, K = sizes(dx, weight)
    launch("mma_dx", dx, dy, weight, i32(M), i32(N), i32(K), i32(add), **over(config, M, K, dy, N, K))


def launch_dr(launch, t):
    """dr = dy, unless both share memory."""
    if t.dr is not None:
        N = t.dy.shape[-1]
        grid = (t.rows, cdiv(N, 256))
        define = over(t.config, t.rows, N, t.dy, N, N)["define"]  # a compilation that dx may have, too
        launch("mma_dr", t.dr, t.dy, i32(N), i32(t.add_dr), grid=grid, block=256, define=define)


def launch_dweight(launch, config, dweight, dbias, dy, x, add=False, add_bias=False, partial=None):
    """dweight = dy^T x and dbias = sum of dy; either may be None. partial: scratch, by default the whole workspace."""
    if dweight is None and dbias is None:
        return
    N, K = dy.shape[-1], x.shape[-1]
    M = math.prod(x.shape[:-1])
    count, each = slices(config, M, N, K)
    config = square(config)
    how = over(config, N, K, x, N, K)
    how["grid"] = (tiles(config, N, K if dweight is not None else 1), count)  # dbias alone needs a column of tiles
    numbers = (M, N, K, each, add, add_bias)
    scratch = launch.workspace if partial is None else partial
    tensors = (dweight, dbias, dy, x, scratch, launch.counters)
    launch("mma_dweight", *tensors, *(i32(n) for n in numbers), **how)


def sizes(x, weight):
    """M, N, K: rows, outputs, inputs."""
    return math.prod(x.shape[:-1]), *weight.shape
