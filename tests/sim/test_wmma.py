"""Kernels with CUDA's wmma, and mma with sums in f16, against products of NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim
from core.kernels import toolkit

WMMA = """
#include <mma.h>
using namespace nvcuda::wmma;
template <int M, int N, int K, typename T, typename C, typename LA, typename LB>
__global__ void k(const T* a, const T* b, const C* c, C* d, int lda, int ldb) {
    fragment<matrix_a, M, N, K, T, LA> fa;
    fragment<matrix_b, M, N, K, T, LB> fb;
    fragment<accumulator, M, N, K, C> fc;
    load_matrix_sync(fa, a, lda);
    load_matrix_sync(fb, b, ldb);
    load_matrix_sync(fc, c, N, mem_row_major);
    mma_sync(fc, fa, fb, fc);
    for (int i = 0; i < fc.num_elements; i++) fc.x[i] += fc.x[i];
    store_matrix_sync(d, fc, N, mem_row_major);
}
"""
TYPES = {"__half": np.float16, "float": np.float32, "int": np.int32, "signed char": np.int8, "double": np.float64}


@pytest.mark.skipif(not toolkit.toolkit().include, reason="no headers of CUDA here")
@pytest.mark.parametrize(
    ("shape", "kind", "sums", "layouts"),
    [
        ((16, 16, 16), "__half", "float", ("row", "row")),
        ((16, 16, 16), "__half", "__half", ("col", "row")),
        ((32, 8, 16), "__half", "float", ("row", "col")),
        ((8, 32, 16), "signed char", "int", ("col", "col")),
        ((16, 16, 16), "__nv_bfloat16", "float", ("row", "col")),
        ((32, 8, 16), "__nv_bfloat16", "float", ("col", "row")),
        ((8, 8, 4), "double", "double", ("row", "col")),
    ],
)
def test_wmma_multiplies_in_every_shape_layout_and_type(shape: tuple, kind: str, sums: str, layouts: tuple) -> None:
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-8, 8, size).astype(np.float64) for size in ((m, k), (k, n), (m, n)))
    stored = []
    for matrix, layout in ((a, layouts[0]), (b, layouts[1])):
        laid = np.ascontiguousarray(matrix if layout == "row" else matrix.T)
        halves = (laid.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        stored.append(laid.astype(TYPES[kind]) if kind in TYPES else halves)
    given, out = c.astype(TYPES[sums]), np.zeros((m, n), TYPES[sums])
    name = f"k<{m},{n},{k},{kind},{sums},{layouts[0]}_major,{layouts[1]}_major>"
    core.sim.run(WMMA, name, 1, 32, [*stored, given, out, stored[0].shape[1], stored[1].shape[1]])
    assert (out == 2 * (a @ b + c)).all()


HALF_SUMS = """
__global__ void k(const unsigned* a, const unsigned* b, unsigned* c) {
    int t = threadIdx.x;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"
                 : "+r"(c[t]), "+r"(c[t + 32])
                 : "r"(a[t]), "r"(a[t + 32]), "r"(a[t + 64]), "r"(a[t + 96]), "r"(b[t]), "r"(b[t + 32]));
}
"""


def test_mma_sums_in_f16_round_once() -> None:
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(s).astype(np.float16) for s in ((16, 16), (16, 8), (16, 8)))
    lane = np.arange(32)
    row, pair = lane >> 2, 2 * (lane & 3)
    left = np.stack([a[row + 8 * (i % 2), (pair + 8 * (i // 2))[:, None].T + np.arange(2)[:, None]] for i in range(4)])
    right = np.stack([b[pair + 8 * i + np.arange(2)[:, None], row] for i in range(2)])
    sums = np.stack([c[row + 8 * i, pair + np.arange(2)[:, None]] for i in range(2)])
    packed = [np.ascontiguousarray(x.transpose(0, 2, 1)).view(np.uint32).reshape(-1) for x in (left, right, sums)]
    core.sim.run(HALF_SUMS, "k", 1, 32, packed)
    got = packed[2].view(np.float16).reshape(2, 32, 2)
    want = np.zeros((16, 8), np.float64)
    for k in range(16):
        want += a[:, k : k + 1].astype(np.float64) * b[k].astype(np.float64)
    want = (want + c).astype(np.float16)
    assert all((got[i, :, j] == want[row + 8 * i, pair + j]).all() for i in range(2) for j in range(2))
