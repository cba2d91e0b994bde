"""Matmul on CUDA: one thread a result, tiles in shared memory, tiles in registers. Kernels: matmul.cu and
matmul_register.cu; those on tensor cores are in matmul_mma.cu."""

from core import Variant, cdiv, i32
from core.kernels.columns import by_column, by_slice, partial_bytes

TILE = 64  # results of a thread block, each way
LARGE = 128  # of `register`
SLICE = 128  # rows whose part of dbias one thread block sums


class MatmulNaive(Variant):
    """One result a thread: each factor is read from memory for each product."""

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
    """64 x 64 results a thread block, from tiles in shared memory: an element is read once for 64 products."""

    op, name = "matmul", "tiled"
    reads = ("x", "weight")
    can_add = ("x",)

    def forward(self, t, launch):
        launch("tiled_forward", t.y, t.x, t.weight, t.bias, *sizes(t), **self.over(t.rows, t.features))

    def workspace(self, t):
        return partial_bytes(t.rows, t.features, SLICE)

    def backward(self, t, launch):
        if t.dx is not None:
            launch("tiled_dx", t.dx, t.dy, t.weight, *sizes(t), i32(t.add_dx), **self.over(t.rows, t.K))
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, t.x, *sizes(t), i32(t.add_dweight))
            launch("tiled_dweight", *arguments, **self.over(t.features, t.K))
        launch_dbias(t, launch)

    def over(self, rows, columns):
        """One thread block for each tile of rows x columns results."""
        return {"grid": (cdiv(rows, TILE), cdiv(columns, TILE)), "block": 256}


class MatmulRegister(Variant):
    """8 x 8 results a thread: half the loads of `tiled` for a multiply-add, and the next tiles are loaded meanwhile."""

    op, name, priority = "matmul", "register", 15
    source = ("matmul_register.cu", "matmul.cu")
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [
        {"x": (128, 1031), "features": 128},  # the op's large ones are too small the other way
        {"x": (1031, 8), "features": 128},
        {"x": (128, 8), "features": 1031},
        {"x": (129, 20), "features": 128},  # two tiles one way, all on 16 bytes
        {"x": (128, 15), "features": 135},  # the other way, on none
    ]

    def why_not(self, t):
        few = min(t.rows, t.features) < LARGE
        return f"{t.rows} x {t.features} results would leave most of a tile of {LARGE} x {LARGE} empty" if few else None

    def forward(self, t, launch):
        launch("register_forward", t.y, t.x, t.weight, t.bias, *sizes(t), **self.over(t.rows, t.features))

    def workspace(self, t):
        return partial_bytes(t.rows, t.features, SLICE)

    def backward(self, t, launch):
        if t.dx is not None:
            launch("register_dx", t.dx, t.dy, t.weight, *sizes(t), i32(t.add_dx), **self.over(t.rows, t.K))
        if t.dweight is not None:
            arguments = (t.dweight, t.dy, t.x, *sizes(t), i32(t.add_dweight))
            launch("register_dweight", *arguments, **self.over(t.features, t.K))
        launch_dbias(t, launch)

    def over(self, rows, columns):
        """One thread block for each tile of rows x columns results."""
        return {"grid": (cdiv(rows, LARGE), cdiv(columns, LARGE)), "block": 256}


def launch_dbias(t, launch):
    """The sum of dy over its rows, in slices."""
    if t.dbias is None:
        return
    slices, N, sums = cdiv(t.rows, SLICE), i32(t.features), launch.workspace
    launch("tiled_sums", sums, t.dy, i32(t.rows), N, i32(SLICE), **by_slice(t.rows, t.features, SLICE))
    arguments = (t.dbias, sums, i32(slices), N, i32(t.add_dbias))
    launch("tiled_dbias", *arguments, **by_column(t.features))


def sizes(t):
    """M, N, K: rows, outputs, inputs."""
    return i32(t.rows), i32(t.features), i32(t.K)
