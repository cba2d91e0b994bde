"""Layernorm on CUDA: one thread a row, one warp a row, and a team of warps a row. Kernels and shapes: layernorm.cu."""

from core import Variant, cdiv, f32, i32
from core.examples import rows_of
from core.kernels.columns import by_column, by_fold, by_slice, partial_bytes
from core.kernels.teams import OnePassRows
from core.kernels.width import width

WARPS = 4  # rows of a thread block
SLICE = 128  # rows whose part of the parameter gradients one thread block sums


class LayerNormNaive(Variant):
    """One thread a row: neighbouring threads read a row apart, and an eighth of the bytes moved is used."""

    op, name, priority = "layernorm", "naive", 0
    saved = {"mean": "... : acc", "rstd": "... : acc"}
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [
        {"x": (67, 70)},  # two thread blocks of rows, two of columns
        {"x": rows_of(509, ((100.0, 1.0), (-100.0, 1.0)))},  # a thread's sum loses digits that the second pass restores
    ]

    def forward(self, t, launch):
        sizes = (i32(t.rows), i32(t.C), f32(t.eps))
        launch("naive_forward", t.y, t.mean, t.rstd, t.x, t.weight, t.bias, *sizes, grid=cdiv(t.rows, 64), block=64)

    def backward(self, t, launch):
        inputs = (t.mean, t.rstd, i32(t.rows), i32(t.C))
        if t.dx is not None:
            arguments = (t.dx, t.dy, t.x, t.weight, *inputs, i32(t.add_dx))
            launch("naive_dx", *arguments, grid=cdiv(t.rows, 64), block=64)
        if t.dweight is not None or t.dbias is not None:
            arguments = (t.dweight, t.dbias, t.dy, t.x, *inputs, i32(t.add_dweight), i32(t.add_dbias))
            launch("naive_dparams", *arguments, grid=cdiv(t.C, 64), block=64)


class LayerNormWarp(Variant):
    """A warp a row, 16 bytes a lane: all bytes moved are used, and a sum is five shuffles."""

    op, name = "layernorm", "warp"
    saved = {"mean": "... : acc", "rstd": "... : acc"}
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [{"x": (SLICE + 3, 264)}]  # two slices; rows longer than one load of a warp

    def forward(self, t, launch):
        arguments = (t.y, t.mean, t.rstd, t.x, t.weight, t.bias, i32(t.rows), i32(t.C), f32(t.eps))
        by_row = {"grid": cdiv(t.rows, WARPS), "block": (32, WARPS)}
        launch("warp_forward", *arguments, **by_row, define={"WIDTH": width(t.C, t.x)})

    def workspace(self, t):
        return partial_bytes(t.rows, t.C, SLICE, sums=2)

    def backward(self, t, launch):
        inputs = (t.mean, t.rstd, i32(t.rows), i32(t.C))
        slices = cdiv(t.rows, SLICE)
        if t.dx is not None:
            arguments = (t.dx, t.dy, t.x, t.weight, *inputs, i32(t.add_dx))
            by_row = {"grid": cdiv(t.rows, WARPS), "block": (32, WARPS)}
            launch("warp_dx", *arguments, **by_row, define={"WIDTH": width(t.C, t.x)})
        if t.dweight is not None or t.dbias is not None:
            sums = launch.workspace
            launch("warp_partials", sums, t.dy, t.x, *inputs, i32(SLICE), **by_slice(t.rows, t.C, SLICE))
            arguments = (t.dweight, t.dbias, sums, i32(slices), i32(t.C), i32(t.add_dweight), i32(t.add_dbias))
            launch("warp_dparams", *arguments, **by_column(t.C))


class LayerNormOnePass(OnePassRows, Variant):
    """Backward reads dy and x once for dx and both parameters' gradients, at any size of a row."""

    op, name, priority = "layernorm", "onepass", 20
    base = "warp"
    sums = 2

    def backward(self, t, launch):
        params = t.dweight is not None or t.dbias is not None
        partials, count, each, how = self.slices(t, launch, params)
        inputs = (t.dy, t.x, t.weight, t.mean, t.rstd, i32(t.rows), i32(t.C), i32(each), i32(t.add_dx))
        launch("onepass_backward", t.dx, partials, *inputs, **how)
        if params:
            arguments = (t.dweight, t.dbias, partials, i32(count), i32(t.C), i32(t.add_dweight), i32(t.add_dbias))
            launch("onepass_dparams", *arguments, **by_fold(t.C, outputs=2))
