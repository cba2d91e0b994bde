"""Matmul on CUDA: one thread a result, and tiles in shared memory. Kernels: matmul.cu."""

from core import Variant, cdiv, i32

TILE = 64  # results of a thread block, each way
SLICE = 128  # rows whose part of dbias one thread block sums


class MatmulNaive(Variant):
    op, name, priority = "matmul", "naive", 0
    reads = ("x", "weight")
    can_add = ("x",)

    def forward(self, t, launch):
        arguments = (t.y, t.x, t.weight, t.bias, *sizes(t))
        launch("naive_forward", *arguments, **self.over(t.rows, t.features))

    def backward(self, t, launch):
        if t.dx is not None:
            launch("naive_dx", t.dx, t.dy, t.weight, *sizes(t), i32(t.add_dx), **self.over(t.rows, t.K))
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, t.x, *sizes(t), i32(t.add_dweight))
            launch("naive_dweight", *arguments, **self.over(t.features, t.K))
        if t.dbias is not None:
            arguments = (t.dbias, t.dy, i32(t.rows), i32(t.features), i32(t.add_dbias))
            launch("naive_dbias", *arguments, grid=cdiv(t.features, 64), block=64)

    def over(self, rows, columns):
        """One thread for each of rows x columns results."""
        return {"grid": (cdiv(rows, 8), cdiv(columns, 32)), "block": (32, 8)}


class MatmulTiled(Variant):
    op, name = "matmul", "tiled"
    reads = ("x", "weight")
    can_add = ("x",)

    def forward(self, t, launch):
        launch("tiled_forward", t.y, t.x, t.weight, t.bias, *sizes(t), **self.over(t.rows, t.features))

    def workspace(self, t):
        return cdiv(t.rows, SLICE) * t.features * 4

    def backward(self, t, launch):
        if t.dx is not None:
            launch("tiled_dx", t.dx, t.dy, t.weight, *sizes(t), i32(t.add_dx), **self.over(t.rows, t.K))
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, t.x, *sizes(t), i32(t.add_dweight))
            launch("tiled_dweight", *arguments, **self.over(t.features, t.K))
        if t.dbias is not None:
            slices, N, sums = cdiv(t.rows, SLICE), i32(t.features), launch.workspace
            by_slice = {"grid": (cdiv(t.features, 32), slices), "block": (32, 8)}
            launch("tiled_sums", sums, t.dy, i32(t.rows), N, i32(SLICE), **by_slice)
            arguments = (t.dbias, sums, i32(slices), N, i32(t.add_dbias))
            launch("tiled_dbias", *arguments, grid=cdiv(t.features, 128), block=128)

    def over(self, rows, columns):
        """One thread block for each tile of rows x columns results."""
        return {"grid": (cdiv(rows, TILE), cdiv(columns, TILE)), "block": 256}


def sizes(t):
    """M, N, K: rows, outputs, inputs."""
    return i32(t.rows), i32(t.features), i32(t.K)
