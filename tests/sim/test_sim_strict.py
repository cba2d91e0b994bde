"""Deliberately broken kernels, and the same kernels unbroken: every fault is reported, nothing else is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import core.sim
from core.sim import KernelError

pytestmark = pytest.mark.usefixtures("screens")

# Each kernel is legal as it stands. Comments FAULT(n) mark the places that a broken version changes.
REDUCE = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    __shared__ float parts[32];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
    for (int o = 16; o; o /= 2) sum += __shfl_xor_sync(0xffffffff, sum, o);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float all = 0;
        for (int i = 0; i < blockDim.x / 32; i++) all += parts[i];
        y[blockIdx.x] = all;
    }
}"""
TILES = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    __shared__ float tile[128];
    float sum = 0;
    for (int i = 0; i < n; i += 128) {
        tile[threadIdx.x] = x[i + threadIdx.x];
        __syncthreads();
        sum += tile[127 - threadIdx.x];
        __syncthreads();
    }
    y[blockIdx.x * 128 + threadIdx.x] = sum;
}"""
WARPS = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    __shared__ float mine[4][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    mine[warp][lane] = x[threadIdx.x];
    __syncwarp();
    y[blockIdx.x * 128 + threadIdx.x] = mine[warp][31 - lane];
}"""
LAST = """
__device__ unsigned counter;
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    __shared__ bool last;
    float* parts = y + 1;
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = x[blockIdx.x] * 2;
        __threadfence();
        last = atomicAdd(&counter, 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float all = 0;
        for (int i = 0; i < gridDim.x; i++) all += parts[i];
        y[0] = all;
        counter = 0;
    }
}"""
CHAIN = """
__device__ unsigned turn;
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    if (threadIdx.x == 0) {
        unsigned v;
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(&turn) : "memory");
        while (v != blockIdx.x);
    }
    __syncthreads();
    y[threadIdx.x] = (blockIdx.x ? y[threadIdx.x] : 0) + x[threadIdx.x] * (blockIdx.x + 1);
    __syncthreads();
    if (threadIdx.x == 0)
        asm volatile("st.release.gpu.global.u32 [%0], %1;" :: "l"(&turn), "r"(blockIdx.x + 1) : "memory");
}"""
HALVES = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    __shared__ float box[64];
    if (threadIdx.x < 64) {
        box[threadIdx.x] = x[threadIdx.x];
        asm volatile("bar.arrive 1, 128;" ::: "memory");
    } else {
        asm volatile("bar.sync 1, 128;" ::: "memory");
        y[threadIdx.x - 64] = box[127 - threadIdx.x];
    }
}"""
VECTOR = """
struct alignas(16) Four { float v[4]; };
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i * 4 < n) {
        Four four = *(const Four*)(x + i * 4);
        for (int j = 0; j < 4; j++) four.v[j] += 1;
        *(Four*)(y + i * 4) = four;
    }
}"""
TREE = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    extern __shared__ float s[];
    s[threadIdx.x] = threadIdx.x < n ? x[threadIdx.x] : 0;
    __syncthreads();
    for (int o = blockDim.x / 2; o; o /= 2) {
        if (threadIdx.x < o) s[threadIdx.x] += s[threadIdx.x + o];
        __syncthreads();
    }
    if (threadIdx.x == 0) y[blockIdx.x] = s[0];
}"""
VOTE = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    float v = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) {
        for (int o = 8; o; o /= 2) v += __shfl_xor_sync(0xffff, v, o);
    }
    y[threadIdx.x] = v;
}"""
COLUMN = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;
    for (int r = 0; r < 4; r++) sum += x[r * n + c];
    y[c] = sum;
}"""
EXCHANGE = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    int i = blockIdx.x * 128 + threadIdx.x;
    y[i] = x[i] * 2;
    __syncthreads();
    float other = y[blockIdx.x * 128 + 127 - threadIdx.x];
    __syncthreads();
    y[i] += other;
}"""
COUNTS = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    __shared__ unsigned bins[32];
    if (threadIdx.x < 32) bins[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&bins[int(x[threadIdx.x] * 4) & 31], 1u);
    __syncthreads();
    if (threadIdx.x < 32) y[threadIdx.x] = bins[threadIdx.x];
}"""

SYNC = "__syncthreads();"
KERNELS: dict[str, tuple[str, dict[str, Any]]] = {
    "reduce": (REDUCE, {"grid": 3, "y": 3, "x": 300, "n": 100}),
    "tiles": (TILES, {"grid": 2, "y": 256, "x": 512, "n": 512}),
    "warps": (WARPS, {"grid": 2, "y": 256, "x": 128, "n": 128}),
    "last": (LAST, {"grid": 5, "y": 6, "x": 5, "n": 5}),
    "chain": (CHAIN, {"grid": 4, "y": 128, "x": 128, "n": 4}),
    "halves": (HALVES, {"grid": 2, "y": 64, "x": 64, "n": 64}),
    "vector": (VECTOR, {"grid": 1, "y": 400, "x": 400, "n": 400}),
    "tree": (TREE, {"grid": 2, "y": 2, "x": 128, "n": 100, "smem": 512}),
    "vote": (VOTE, {"grid": 1, "y": 128, "x": 128, "n": 0}),
    "column": (COLUMN, {"grid": 2, "y": 256, "x": 1024, "n": 256}),
    "exchange": (EXCHANGE, {"grid": 2, "y": 256, "x": 256, "n": 0}),
    "counts": (COUNTS, {"grid": 1, "y": 32, "x": 128, "n": 0}),
}
LEGAL_SHARED_Y = {"halves"}  # both thread blocks write the same values to y: run with one

# (kernel, what is replaced, by what, the kind of error)
BROKEN: list[tuple[str, str, str, str]] = [
    ("reduce", SYNC, "", "race"),
    (
        "reduce",
        "threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum",
        "threadIdx.x == 0) parts[0] = sum",
        "uninitialised",
    ),
    ("reduce", "parts[threadIdx.x / 32] = sum", "parts[0] = sum", "race"),
    ("reduce", "blockIdx.x * n + i", "blockIdx.x * n + i + 1", "out of bounds"),
    ("reduce", "y[blockIdx.x] = all", "y[blockIdx.x + 1] = all", "out of bounds"),
    ("reduce", "y[blockIdx.x] = all", "y[0] = all", "race"),
    ("reduce", "__shared__ float parts[32]", "__shared__ float parts[3]", "out of bounds"),
    ("reduce", "i < blockDim.x / 32", "i <= blockDim.x / 32", "uninitialised"),
    ("reduce", SYNC, "if (threadIdx.x < 64) __syncthreads();", "divergent"),
    ("tiles", SYNC + "\n        sum", "sum", "race"),
    ("tiles", SYNC + "\n    }", "}", "race"),
    ("tiles", "tile[127 - threadIdx.x]", "tile[128 - threadIdx.x]", "out of bounds"),
    ("tiles", "i < n", "i <= n", "out of bounds"),
    ("tiles", "blockIdx.x * 128 + threadIdx.x] = sum", "threadIdx.x] = sum", "race"),
    ("tiles", "tile[threadIdx.x] = x", "if (threadIdx.x) tile[threadIdx.x] = x", "uninitialised"),
    ("warps", "__syncwarp();", "", "race"),
    ("warps", "mine[warp][31 - lane]", "mine[3 - warp][31 - lane]", "race"),
    ("last", "__threadfence();\n        last", "last", "race"),
    ("last", "- 1;\n        __threadfence();", "- 1;", "race"),
    ("last", SYNC, "", "race"),
    ("last", "atomicAdd(&counter, 1)", "counter++", "race"),
    ("chain", "ld.acquire.gpu", "ld.relaxed.gpu", "race"),
    ("chain", "st.release.gpu", "st.relaxed.gpu", "race"),
    ("chain", SYNC + "\n    y[", "y[", "race"),
    ("chain", SYNC + "\n    if", "if", "race"),
    ("chain", "blockIdx.x + 1) : ", "blockIdx.x) : ", "deadlock"),
    ("halves", 'asm volatile("bar.sync 1, 128;" ::: "memory");', "", "race"),
    ("halves", "bar.sync 1, 128", "bar.sync 1, 192", "barrier count"),
    ("halves", "bar.arrive 1, 128", "bar.arrive 2, 128", "barrier never completes"),
    ("halves", "box[127 - threadIdx.x]", "box[threadIdx.x]", "out of bounds"),
    ("vector", "x + i * 4)", "x + i * 4 + 1)", "misaligned"),
    ("vector", "i * 4 < n", "i * 4 <= n", "out of bounds"),
    ("vector", "(y + i * 4)", "(y + i * 2)", "misaligned"),
    ("vector", "*(Four*)(y + i * 4)", "*(Four*)(y + i / 64 * 4)", "race"),
    ("tree", "o; o /= 2) {\n        if (threadIdx.x < o)", "o; o /= 2) {\n        if (true)", "out of bounds"),
    ("tree", SYNC + "\n    }", "}", "race"),
    ("tree", SYNC + "\n    for", "for", "race"),
    ("tree", "threadIdx.x < n ? x[threadIdx.x] : 0", "x[threadIdx.x + 1]", "out of bounds"),
    ("tree", "s[threadIdx.x] = threadIdx.x < n ?", "if (threadIdx.x < n) s[threadIdx.x] = true ?", "uninitialised"),
    ("vote", "0xffff, v", "0xffffffff, v", "member absent"),
    ("column", "r < 4", "r < 5", "out of bounds"),
    ("column", "y[c] = sum", "y[c / 64] = sum", "race"),
    ("column", "y[c] = sum", "(y - 1000000)[c] = sum", "out of bounds"),
    ("exchange", SYNC + "\n    float", "float", "race"),
    ("exchange", SYNC + "\n    y[i] += other", "y[i] += other", "race"),
    ("exchange", "y[blockIdx.x * 128 + 127 - threadIdx.x]", "y[255 - i]", "race"),
    ("counts", SYNC + "\n    atomicAdd", "atomicAdd", "race"),
    ("counts", SYNC + "\n    if", "if", "race"),
    ("counts", "atomicAdd(&bins[int(x[threadIdx.x] * 4) & 31], 1u)", "bins[int(x[threadIdx.x] * 4) & 31]++", "race"),
    ("counts", "bins[threadIdx.x] = 0", "bins[0] = 0", "uninitialised"),
]


def run(source: str, grid: int, y: int, x: int, n: int, smem: int = 0, strict: bool = True) -> Any:
    out = np.zeros(y, np.float32)
    data = np.random.default_rng(0).standard_normal(x).astype(np.float32)
    core.sim.run(source, "kernel", grid, 128, [out, data, np.int32(n)], smem, strict=strict)
    return out, data


def settings(name: str) -> dict[str, Any]:
    chosen = dict(KERNELS[name][1])
    if name in LEGAL_SHARED_Y:
        chosen["grid"] = 1
    return chosen


@pytest.mark.parametrize("name", KERNELS)
def test_unbroken_kernels_raise_no_alarm_and_fast_mode_gives_the_same_bits(name):
    strict, _ = run(KERNELS[name][0], **settings(name))
    fast, _ = run(KERNELS[name][0], **settings(name), strict=False)
    assert strict.tobytes() == fast.tobytes()
    assert strict.any()


@pytest.mark.parametrize(("name", "what", "by", "kind"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_kernel_is_reported(name, what, by, kind):
    source = KERNELS[name][0]
    assert what in source
    with pytest.raises(KernelError) as caught:
        run(source.replace(what, by, 1), **settings(name))
    assert caught.value.kind == kind, str(caught.value)
    text = str(caught.value)
    assert "kernel kernel, kernel.cu:" in text and re.search(r"thread \d+ of block \d", text)


def test_there_are_at_least_forty_broken_kernels():
    assert len(BROKEN) >= 40


def test_an_error_names_kernel_line_thread_and_element_and_keeps_the_address_apart():
    source = KERNELS["column"][0].replace("y[c] = sum", "y[c + 1] = sum")
    with pytest.raises(KernelError) as caught:
        run(source, **settings("column"))
    line = next(i for i, text in enumerate(source.splitlines(), 1) if "y[c + 1]" in text)
    text = str(caught.value)
    assert f"kernel.cu:{line} `y[c + 1] = sum`: thread 127 of block 1 writes y[256], and y has 256 elements" in text
    assert "0x" not in text and "st.global" not in text
    assert "address 0x" in caught.value.details and "st.global" in caught.value.details


def test_an_error_in_an_inlined_function_names_every_call_on_the_way():
    source = """
__device__ float deep(const float* x, int i) {
    return x[i + 1000];
}
__device__ float middle(const float* x, int i) {
    return deep(x, i) * 2;
}
__device__ __noinline__ float called(const float* x, int i) {
    return middle(x, i) + 1;
}
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    y[threadIdx.x] =
        called(x, threadIdx.x);
}"""
    with pytest.raises(KernelError) as caught:
        run(source, 1, 128, 128, 0)
    chain = ", inlined at ".join(
        ("kernel.cu:3 `return x[i + 1000]`", "kernel.cu:6", "kernel.cu:9", "kernel.cu:13 `called(x, threadIdx.x)`")
    )
    assert f"kernel kernel, {chain}: thread 0 of block 0 reads x[1000], and x has 128 elements" in str(caught.value)


def test_a_chain_of_thread_blocks_runs_in_both_modes():
    for strict in (False, True):
        out, x = run(CHAIN, **settings("chain"), strict=strict)
        wanted = np.zeros(128, np.float32)
        for block in range(4):
            wanted = wanted + x[:128] * np.float32(block + 1)
        assert np.allclose(out, wanted, rtol=1e-6)


def test_a_result_that_depends_on_the_order_of_thread_blocks_is_reported():
    source = """
__device__ unsigned lock;
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    if (threadIdx.x) return;
    while (atomicCAS(&lock, 0, 1)) __nanosleep(20);
    __threadfence();
    y[0] = y[0] * 2 + blockIdx.x;
    __threadfence();
    atomicExch(&lock, 0);
}"""
    with pytest.raises(KernelError) as caught:
        run(source, 6, 1, 1, 0)
    assert caught.value.kind == "order"
    run(source.replace("y[0] * 2 + blockIdx.x", "y[0] + 1"), 6, 1, 1, 0)


# --------------------------------------------------------------------------- shared variables
NEIGHBOURS = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    DECLARED
    int t = threadIdx.x;
    for (int i = t; i < 64; i += 128) { A[i] = 1; B[i] = 2; }
    __syncthreads();
    y[t] = READ;
}"""
PAIRS = {
    "two arrays": ("__shared__ float a[64], b[64];", "a", "b"),
    "two declarations": ("__shared__ alignas(128) float a[64]; __shared__ int b[64];", "a", "b"),
    "rows": ("__shared__ float a[4][16], b[64];", "(&a[0][0])", "b"),
    "static and dynamic": ("__shared__ float a[64]; extern __shared__ float b[];", "a", "b"),
}
RUNS_OVER = {
    "one too far": "a[64]",
    "as far as the array is long": "a[64 + t % 64]",
    "before the second": "b[-1]",
    "written": "(a[64 + t / 128] = 1, a[t % 64])",
    "added to": "atomicAdd(&a[64], 1)",
}


def shared(declared: str, a: str, b: str, read: str) -> None:
    read = read.replace("a[", f"{a}[").replace("b[", f"{b}[")
    source = (
        NEIGHBOURS.replace("DECLARED", declared).replace("READ", read).replace("A[", f"{a}[").replace("B[", f"{b}[")
    )
    run(source, 1, 128, 128, 0, smem=256 if "extern" in declared else 0)


@pytest.mark.parametrize("declared", PAIRS)
@pytest.mark.parametrize("read", RUNS_OVER)
def test_an_index_that_runs_from_one_shared_variable_into_another_is_out_of_bounds(declared, read):
    shared(*PAIRS[declared], "a[t % 64] + b[t % 64]")
    with pytest.raises(KernelError) as caught:
        shared(*PAIRS[declared], RUNS_OVER[read])
    assert caught.value.kind == "out of bounds"
    assert re.search(r"(reads|writes|updates) [ab](\[\S+\])+, and [ab] (has|is declared)", str(caught.value))


def test_a_struct_is_one_shared_variable_and_zones_count_in_no_limit():
    source = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    __shared__ struct { float a[32], b[32]; } s;
    __shared__ float most[12000], rest[224];
    unsigned whole;
    asm("mov.u32 %0, %%total_smem_size;" : "=r"(whole));
    int t = threadIdx.x;
    s.a[t % 32] = s.b[t % 32] = most[t] = rest[t] = t;
    __syncthreads();
    y[t] = (&s.a[0])[n + t % 32] + most[t] + rest[t] + whole;
}"""
    out = np.zeros(32, np.float32)
    core.sim.run(source, "kernel", 1, 32, [out, out.copy(), np.int32(32)])
    assert out[3] == 3 + 3 + 3 + (12000 + 224 + 64) * 4 + 1024
