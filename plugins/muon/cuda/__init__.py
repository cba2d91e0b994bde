"""Muon's update on CUDA: matrix products with one thread per element, and in shared tiles. Kernels: muon_update.cu."""

from itertools import accumulate

from core import Variant, cdiv, f32, i32, u64
from core.kernels.width import WIDEST

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

    def matrices(self, t):
        """(elements, dtype) of the direction, which is the first X; of the next one; of S and its polynomial."""
        n, square = t.A * t.B, min(t.A, t.B) ** 2
        return [(n, "f32"), (n, "f32"), (square, "f32"), (square, "f32")]

    def parts(self, t):
        """(elements, dtype, first byte) of each part of the workspace, and its size: the matrices, the sums of thread
        blocks, the length."""
        parts = [*self.matrices(t), (self.blocks(t), "f32"), (1, "f32")]
        starts = [0, *accumulate(cdiv(16 // WIDEST[dtype] * size, 256) * 256 for size, dtype in parts)]
        return [(*part, start) for part, start in zip(parts, starts[:-1], strict=True)], starts[-1]

    def workspace(self, t):
        return self.parts(t)[1]

    def blocks(self, t):
        return cdiv(t.A * t.B, THREADS)

    def forward(self, t, launch):
        n, each = t.A * t.B, {"grid": self.blocks(t), "block": THREADS}
        parts = self.parts(t)[0]
        *matrices, sums, total = (launch.workspace.part(start, (size,), dtype) for size, dtype, start in parts)
        blend = (f32(t.momentum), i32(t.nesterov))
        launch("direction", matrices[0], t.m, sums, t.grad, t.step, u64(n), *blend, **each)
        launch("length", total, sums, i32(self.blocks(t)), f32(TINY), grid=1, block=THREADS)
        x = self.orthogonal(t, launch, total, each, *matrices)
        scales = (f32(step_size(t)), f32(t.weight_decay), f32(t.lr_factor))
        self.step(t, launch, t.param, t.master, x, t.step, u64(n), *scales, **each)

    def step(self, t, launch, *arguments, **each):
        launch("step", *arguments, **each)

    def orthogonal(self, t, launch, total, each, x, y, s, poly):
        """The direction with singular values of about 1, in one of the matrices."""
        small, large = sorted((t.A, t.B))
        launch("unit", x, total, u64(t.A * t.B), **each)
        row, column = (1, t.B) if t.A > t.B else (t.B, 1)  # strides of X, whose rows may be columns of the matrix
        a, b, c = COEFFICIENTS
        for _ in range(t.iterations):
            square, wide = (small, small), (small, large)
            self.multiply(launch, square, (s, small, 1), (0.0, s), (x, row, column), (1.0, x, column, row), large)
            self.multiply(launch, square, (poly, small, 1), (b, s), (s, small, 1), (c, s, small, 1), small)
            self.multiply(launch, wide, (y, row, column), (a, x), (poly, small, 1), (1.0, x, row, column), small)
            x, y = y, x
        return x

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
