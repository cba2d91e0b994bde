"""Muon's update on CUDA: matrix products with one thread per element, and in shared tiles. Kernels: muon_update.cu."""

from core import Variant, cdiv, f32, i32, u64

from ..muon import COEFFICIENTS, TINY, step_size

THREADS = 256
TILE = 32  # rows and columns of a thread block's part of a product


class MuonNaive(Variant):
    op, name, priority = "muon_update", "naive", 0
    source = "muon_update.cu"
    examples = [  # more sums of thread blocks than `length` has threads
        {"param": (32, 2080), "grad": (32, 2080), "m": (32, 2080), "iterations": 1}
    ]
    tolerance = {"f32": 2e-5}
    tolerance_why = "each round of the iteration triples the rounding errors of small singular values"

    def workspace(self, t):
        small, large = sorted((t.A, t.B))
        return 4 * (2 * small * large + 2 * small * small + self.blocks(t) + 1)

    def blocks(self, t):
        return cdiv(t.A * t.B, THREADS)

    def forward(self, t, launch):
        n, (small, large) = t.A * t.B, sorted((t.A, t.B))
        across = t.A > t.B  # then rows of X are columns of the matrix
        sizes = (n, n, small * small, small * small, self.blocks(t), 1)
        starts = (4 * sum(sizes[:i]) for i in range(len(sizes)))
        parts = (launch.workspace.part(start, (size,), "f32") for start, size in zip(starts, sizes, strict=True))
        x, y, s, poly, sums, total = parts
        grid, block = self.blocks(t), THREADS
        blend = (f32(t.momentum), i32(t.nesterov))
        launch("direction", x, t.m, sums, t.grad, t.step, u64(n), *blend, grid=grid, block=block)
        launch("length", total, sums, i32(grid), f32(TINY), grid=1, block=block)
        launch("unit", x, total, u64(n), grid=grid, block=block)
        row, column = (1, t.B) if across else (t.B, 1)  # strides of X
        a, b, c = COEFFICIENTS
        for _ in range(t.iterations):
            square, wide = (small, small), (small, large)
            self.multiply(launch, square, (s, small, 1), (0.0, s), (x, row, column), (1.0, x, column, row), large)
            self.multiply(launch, square, (poly, small, 1), (b, s), (s, small, 1), (c, s, small, 1), small)
            self.multiply(launch, wide, (y, row, column), (a, x), (poly, small, 1), (1.0, x, row, column), small)
            x, y = y, x
        scales = (f32(step_size(t)), f32(t.weight_decay))
        launch("step", t.param, t.master, x, t.step, u64(n), *scales, grid=grid, block=block)

    def multiply(self, launch, shape, *parts):
        launch("naive_product", *product(shape, *parts), **over(shape))


class MuonTiled(MuonNaive):
    name, priority = "tiled", 10

    def multiply(self, launch, shape, *parts):
        launch("tiled_product", *product(shape, *parts), **over(shape))


def product(shape, out, scaled, left, right, inner):
    """Arguments of out = keep base + factor left right. out and left: (tensor, strides); scaled: (keep, base); right:
    (factor, tensor, strides).

    base has out's layout; shape: (rows, columns) of out; inner: the dimension that left and right share.
    """
    (target, *place), (keep, base), (p, *of_p), (factor, q, *of_q) = out, scaled, left, right
    strides = (i32(v) for v in (*place, *of_p, *of_q))
    return target, base, p, q, f32(keep), f32(factor), *strides, *(i32(n) for n in (*shape, inner))


def over(shape):
    """A thread for each element of a product, in square tiles."""
    rows, columns = shape
    return {"grid": (cdiv(columns, TILE), cdiv(rows, TILE)), "block": (TILE, TILE)}
