"""Compiles three kernels by Numba, without a GPU, and writes their PTX beside this file."""

# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import math
from pathlib import Path

from numba import cuda, float32


def scale(y, x, a):
    i = cuda.grid(1)
    if i < y.shape[0]:
        y[i] = a * x[i]


def transpose(y, x):
    tile = cuda.shared.array((16, 17), float32)
    a, b = cuda.threadIdx.x, cuda.threadIdx.y
    i, j = cuda.blockIdx.y * 16 + b, cuda.blockIdx.x * 16 + a
    if i < x.shape[0] and j < x.shape[1]:
        tile[b, a] = x[i, j]
    cuda.syncthreads()
    i, j = cuda.blockIdx.x * 16 + b, cuda.blockIdx.y * 16 + a
    if i < y.shape[0] and j < y.shape[1]:
        y[i, j] = tile[a, b]


def total(y, x):
    i = cuda.grid(1)
    v = float32(0)
    while i < x.shape[0]:
        v += math.sqrt(x[i])
        i += cuda.gridsize(1)
    for d in (16, 8, 4, 2, 1):
        v += cuda.shfl_down_sync(0xFFFFFFFF, v, d)
    if cuda.laneid == 0:
        cuda.atomic.add(y, 0, v)


LINE, TABLE = float32[::1], float32[:, ::1]
JOBS = ((scale, (LINE, LINE, float32)), (transpose, (TABLE, TABLE)), (total, (LINE, LINE)))

if __name__ == "__main__":
    for kernel, types in JOBS:
        text, _ = cuda.compile_ptx(kernel, types, cc=(9, 0), device=False)
        lines = "".join(f"{line.rstrip()}\n" for line in text.rstrip("\0").splitlines())
        Path(__file__).with_name(f"numba_{kernel.__name__}.ptx").write_text(lines)
