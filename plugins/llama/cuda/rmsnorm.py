"""RMSNorm on CUDA: one thread a row, one warp a row, and a team of warps a row. Kernels and shapes: rmsnorm.cu."""

from core import Variant, cdiv, f32, i32
from core.kernels.columns import by_column, by_fold, by_slice, partial_bytes
from core.kernels.teams import OnePassRows
from core.kernels.width import defined, width

WARPS = 4  # rows of a thread block
SLICE = 128  # rows whose part of dweight one thread block sums


class RmsNormNaive(Variant):
    op, name, priority = "rmsnorm", "naive", 0
    saved = {"rstd": "... : acc"}
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [{"x": (67, 3)}, {"x": (2, 70)}]  # two thread blocks of rows, two of columns

    def forward(self, t, launch):
        sizes = (i32(t.rows), i32(t.C), f32(t.eps), f32(t.offset))
        launch("naive_forward", t.y, t.rstd, t.x, t.weight, *sizes, grid=cdiv(t.rows, 64), block=64)

    def backward(self, t, launch):
        sizes = (i32(t.rows), i32(t.C))
        if t.dx is not None:
            arguments = (t.dx, t.dy, t.x, t.weight, t.rstd, *sizes, f32(t.offset), i32(t.add_dx))
            launch("naive_dx", *arguments, grid=cdiv(t.rows, 64), block=64)
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, t.x, t.rstd, *sizes, i32(t.add_dweight))
            launch("naive_dweight", *arguments, grid=cdiv(t.C, 64), block=64)


class RmsNormWarp(Variant):
    op, name = "rmsnorm", "warp"
    saved = {"rstd": "... : acc"}
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [{"x": (SLICE + 3, 5)}, {"x": (5, 264)}]  # two slices; rows of more than a warp loads at once

    def forward(self, t, launch):
        arguments = (t.y, t.rstd, t.x, t.weight, i32(t.rows), i32(t.C), f32(t.eps), f32(t.offset))
        launch("warp_forward", *arguments, **self.by_row(t))

    def workspace(self, t):
        return partial_bytes(t.rows, t.C, SLICE)

    def backward(self, t, launch):
        sizes, slices = (i32(t.rows), i32(t.C)), cdiv(t.rows, SLICE)
        if t.dx is not None:
            arguments = (t.dx, t.dy, t.x, t.weight, t.rstd, *sizes, f32(t.offset), i32(t.add_dx))
            launch("warp_dx", *arguments, **self.by_row(t))
        if t.dweight is not None:
            sums = launch.workspace
            arguments = (sums, t.dy, t.x, t.rstd, *sizes, i32(SLICE))
            launch("warp_partials", *arguments, **by_slice(t.rows, t.C, SLICE))
            arguments = (t.dweight, sums, i32(slices), i32(t.C), i32(t.add_dweight))
            launch("warp_dweight", *arguments, **by_column(t.C))

    def by_row(self, t):
        return {"grid": cdiv(t.rows, WARPS), "block": (32, WARPS), "define": defined(width(t.C, t.x))}


class RmsNormOnePass(OnePassRows, Variant):
    """Backward reads dy and x once for dx and the weight's gradient, at any size of a row."""

    op, name, priority = "rmsnorm", "onepass", 20
    base = "warp"

    def backward(self, t, launch):
        partials, count, each, how = self.slices(t, launch, t.dweight is not None)
        sizes = (i32(t.rows), i32(t.C), i32(each), f32(t.offset), i32(t.add_dx))
        launch("onepass_backward", t.dx, partials, t.dy, t.x, t.weight, t.rstd, *sizes, **how)
        if t.dweight is not None:
            launch("onepass_dweight", t.dweight, partials, i32(count), i32(t.C), i32(t.add_dweight), **by_fold(t.C))
