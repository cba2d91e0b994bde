"""What strict mode says: parameter, index, both threads and the source line; no address, no PTX."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import core.sim
from core.sim import KernelError
from core.sim.ptx.declared import constants, declares, plain_name


def said(source: str | Path, *args: Any, kernel: str = "k", grid: Any = 1, block: Any = 32, **more: Any) -> KernelError:
    with pytest.raises(KernelError) as caught:
        core.sim.run(source, kernel, grid, block, list(args), **more)
    return caught.value


def zeros(count: int, kind: Any = np.float32) -> Any:
    return np.zeros(count, kind)


ADD = """
extern "C" __global__ void k(float* y, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] + 10;
}"""


def test_an_index_past_the_end_names_parameter_index_thread_and_source_line():
    for strict in (False, True):
        error = said(ADD, zeros(64), zeros(1), np.int32(64), grid=2, strict=strict)
        want = "kernel k, kernel.cu:4 `y[i] = x[i] + 10`: thread 1 of block 0 reads x[1], and x has 1 element"
        assert error.message == want and error.kind == "out of bounds"
        assert re.fullmatch(r"address 0x\w+, `ld\.global\S* .*`", error.details)
    error = said(ADD.replace("y[i]", "y[i - 3]"), zeros(64), zeros(64), np.int32(64), grid=2)
    assert "thread 0 of block 0 writes y[-3], and y has 64 elements" in error.message


def test_a_file_is_quoted_and_threads_of_several_axes_are_named_by_all(tmp_path: Path):
    path = tmp_path / "add.cu"
    path.write_text(
        ADD.replace("blockIdx.x * blockDim.x + threadIdx.x", "(blockIdx.y * 4 + threadIdx.y) * 8 + threadIdx.x")
    )
    error = said(path, zeros(64), zeros(41), np.int32(64), grid=(1, 2), block=(8, 4))
    assert "add.cu:4 `y[i] = x[i] + 10`: thread (1, 1) of block (0, 1) reads x[41]" in error.message


def test_elements_have_the_parameters_type_and_a_wide_access_names_them_all():
    source = """
__device__ float f(float4 v) { return v.x + v.y + v.z + v.w; }
extern "C" __global__ void k(float* y, const TYPE* x) {
    int t = threadIdx.x;
    y[t] = READ;
}"""
    error = said(source.replace("TYPE", "float").replace("READ", "f(((const float4*)x)[t])"), zeros(32), zeros(20))
    assert "thread 5 of block 0 reads x[20] to x[23], and x has 20 elements" in error.message
    error = said(source.replace("TYPE", "double").replace("READ", "x[t]"), zeros(32), zeros(20, np.float64))
    assert "thread 20 of block 0 reads x[20]" in error.message
    error = said(source.replace("TYPE", "float").replace("READ", "x[t]"), zeros(32), None)
    assert "thread 0 of block 0 reads x[0], and x is a null pointer" in error.message


def test_a_pointer_is_named_after_its_parameter_wherever_it_has_got_to():
    source = """
extern "C" __global__ void k(float* y, const float* first, const float* second) {
    const float* p = threadIdx.x % 2 ? first : second;
    for (int i = 0; i < 3; i++) p += 1000000;
    y[threadIdx.x] = *p;
}"""
    error = said(source.replace("threadIdx.x % 2 ? first : second", "second + 5"), zeros(32), zeros(8), zeros(8))
    assert "reads second[3000005], and second has 8 elements" in error.message


TILE = """
#define ROWS 4
extern "C" __global__ void k(float* y, int n) {
    constexpr int COLUMNS = 32;
    __shared__ float tile[ROWS][COLUMNS + 1];
    __shared__ int counts[ROWS * 2], flag;
    int t = threadIdx.x;
    tile[t / 32][t % 32] = t;
    if (t < 8) counts[t] = t;
    if (t == 0) flag = 1;
    __syncthreads();
    y[t] = READ;
}"""


def test_shared_variables_are_named_with_the_indices_of_their_declaration():
    for read, what in {
        "tile[n][t % 32]": "reads tile[4][0], and tile is declared tile[4][33]",
        "counts[n + t]": "reads counts[8], and counts has 8 elements",
        "tile[t / 32][32]": "reads tile[0][32], which nothing has written",
        "(&flag)[n / 4]": "reads flag[1], and flag has 1 element",
    }.items():
        assert what in said(TILE.replace("READ", read), zeros(128), np.int32(4), block=128).message, read
    unknown = TILE.replace("COLUMNS + 1", "sizeof(float) * 8 + 1").replace("READ", "tile[t / 32][32]")
    assert "reads tile + 32 floats, which nothing" in said(unknown, zeros(128), np.int32(4), block=128).message
    dynamic = (
        'extern "C" __global__ void k(float* y) {\n    extern __shared__ float s[];\n    y[0] = s[threadIdx.x];\n}'
    )
    assert "reads s[0], which nothing has written" in said(dynamic, zeros(1), smem=128).message
    assert "reads s[32], and s has 32 elements" in said(dynamic.replace("s[t", "s[32 + t"), zeros(1), smem=128).message


OWNERS = """
extern "C" __global__ void k(float* y, const float* x) {
    int i = threadIdx.x + blockIdx.x * 3;
    y[i] = x[i];
}"""


def test_two_threads_that_own_one_element_are_told_so_and_of_no_barrier():
    error = said(OWNERS, zeros(64), zeros(64), grid=2, block=4)
    assert (
        "race: thread 3 of block 0 writes y[3], thread 0 of block 1 writes y[3]: each element needs one owner"
        in str(error)
    )
    assert "barrier" not in error.hint and "__sync" not in error.hint and error.kind == "race"
    loop = OWNERS.replace("    y[i] = x[i];", "    for (; i < 64; i++)\n        y[i] = x[i];")
    error = said(loop, zeros(64), zeros(64), block=64)
    assert re.search(r"thread \d+ of block 0 writes y\[\d+\], thread \d+ of block 0 writes .*one owner", error.message)
    shared = """
extern "C" __global__ void k(float* y) {
    __shared__ float s[8];
    s[threadIdx.x / 16] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x / 16];
}"""
    error = said(shared.replace("/ 16", "/ 64"), zeros(64), block=64)
    assert "writes s[0]: each element needs one owner" in error.message


ORDERED = """
extern "C" __global__ void k(float* y) {
    __shared__ float s[64];
    int t = threadIdx.x;
    s[t] = t;
    y[t] = s[63 - t];
}"""


def test_a_race_names_both_threads_both_lines_and_what_would_order_them():
    error = said(ORDERED, zeros(64), block=64)
    assert error.message == (
        "kernel k, kernel.cu:6 `y[t] = s[63 - t]`: race: this read is not ordered after a write: thread 0 of block 0 "
        "reads s[63], which thread 63 of block 0 has written (kernel.cu:5 `s[t] = t`)"
    )
    assert error.hint == "__syncthreads() between the two"
    error = said(OVERWRITTEN, zeros(64), block=64)
    want = (
        "this write is not ordered after a read: thread 0 of block 0 writes s[0], which thread 63 of block 0 has read"
    )
    assert want in error.message and error.hint == "__syncthreads() between the two"


OVERWRITTEN = """
extern "C" __global__ void k(float* y) {
    __shared__ float s[64];
    int t = threadIdx.x;
    s[t] = t;
    __syncthreads();
    y[t] = s[63 - t];
    s[t] = 1;
    __syncthreads();
    y[t] += s[0];
}"""
LAST = """
__device__ unsigned count;
extern "C" __global__ void k(float* y, float* parts) {
    __shared__ bool last;
    int t = threadIdx.x;
    parts[blockIdx.x * 64 + t] = t;
    BEFORE
    if (t == 0) {
        FENCE
        last = atomicAdd(&count, 1) == gridDim.x - 1;
        AFTER
    }
    __syncthreads();
    if (last) y[t] = parts[t] + parts[64 + t];
}"""
SIDES = {
    "reading": ("__syncthreads();", "__threadfence();", "", "the reading side lacks its fence"),
    "writing": ("__syncthreads();", "", "__threadfence();", "the writing side lacks its fence"),
    "neither": ("__syncthreads();", "", "", "before it on the writing side and after it on the reading side"),
    "before the barrier": (
        "__threadfence();\n    __syncthreads();", "", "__threadfence();", "stands before the barrier, so that it covers"
    ),
    "no barrier": ("", "__threadfence();", "__threadfence();", "stands before the barrier, so that it covers"),
}  # fmt: skip


@pytest.mark.parametrize("side", SIDES)
def test_the_hint_for_the_last_block_pattern_says_which_side_lacks_its_fence(side):
    before, fence, after, hint = SIDES[side]
    source = LAST.replace("BEFORE", before).replace("FENCE", fence).replace("AFTER", after)
    error = said(source, zeros(64), zeros(256), grid=4, block=64)
    assert error.kind == "race" and hint in error.hint, str(error)


def test_the_last_block_pattern_with_its_fences_raises_no_alarm():
    source = (
        LAST.replace("BEFORE", "__syncthreads();")
        .replace("FENCE", "__threadfence();")
        .replace("AFTER", "__threadfence();")
    )
    core.sim.run(source, "k", 4, 64, [zeros(64), zeros(256)])


def test_names_of_variables_and_their_declarations_are_read_as_cpp_writes_them():
    assert plain_name("_ZZ6kernelE4tile") == "tile"
    assert plain_name("_ZZ4funcPfE5parts") == "parts"
    assert plain_name("dyn") == "dyn"
    plain = "__shared__ alignas(16) unsigned char a[2][N], b[ 4 ]; extern __shared__ float c[];"
    plain += "__shared__ struct { int x; } d;"
    assert declares(plain, "a") == ("unsigned char", ["2", "N"])
    assert declares(plain, "b") == ("unsigned char", [" 4 "])
    assert declares(plain, "c") == ("float", [""])
    assert declares(plain, "d") == ("struct", [])
    assert declares(plain, "e") is None
    assert constants("#define N 4\nconstexpr int M = N * 2;", {"K": "16"}) == {"K": 16, "N": 4, "M": 8}
