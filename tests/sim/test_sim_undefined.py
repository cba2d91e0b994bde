"""Undefined values, of shared memory that nothing wrote and of shuffles, are a finding of strict mode once used."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim

pytestmark = pytest.mark.usefixtures("screens")

READ = "float v = ((volatile float*)s)[t];"  # of 64 elements 8 are written
HEAD = """extern "C" __global__ void k(float* y, int n) {
    int t = threadIdx.x; __shared__ float s[64]; if (t < 8) s[t] = t + 1; __syncthreads();
    """


def run(body: str, n: int = 8, threads: int = 32, strict: bool = True) -> list[float]:
    y = np.zeros(64, np.float32)
    core.sim.run(HEAD + body + "\n}", "k", 1, threads, [y, np.int32(n)], strict=strict)
    return y.tolist()


def finding(body: str, n: int = 8, threads: int = 32) -> core.sim.KernelError:
    with pytest.raises(core.sim.KernelError) as caught:
        run(body, n, threads)
    return caught.value


UNUSED = {
    "a select": READ + "\n y[t] = t < n ? v : 0;",
    "a select of a sum": READ + "\n float w = v * 2 + 1; y[t] = t < n ? w : 0;",
    "a branch": READ + "\n if (t < n) y[t] = v;",
    "a condition": READ + "\n if (t < n && v > 2) y[t] = 1;",
    "never": READ + "\n y[t] = 1;",
    "overwritten": READ + "\n if (t >= n) v = 0; y[t] = v;",
    "bits that are cut off": READ + "\n int m = t < n ? -1 : 0; y[t] = __float_as_int(v) & m;",
    "a shuffle from lanes that have it": READ + "\n y[t] = __shfl_sync(~0u, v, t & 7);",
    "a tree": READ + "\n for (int o = 4; o; o /= 2) v += __shfl_down_sync(~0u, v, o); if (t == 0) y[t] = v;",
    "an array of the thread": "float a[3]; a[0] = s[t]; a[1] = 1; a[2] = 2;\n y[t] = a[1 + (n + t) % 2];",
    "elements of a vector": "float4 v = *(float4*)(s + t % 4 / 2 * 8);\n y[t] = t % 4 < 2 ? v.x + v.w : 0;",
}


@pytest.mark.parametrize("body", UNUSED.values(), ids=UNUSED)
def test_an_undefined_value_that_is_not_used_is_no_finding(body):
    run(body)


USED = {
    "stored": (READ + "\n y[t] = v;", "kernel.cu:4 `y[t] = v`"),
    "stored in part": (READ + "\n y[t] = t <= n ? v : 0;", "kernel.cu:4 `y[t] = t <= n ? v : 0`"),
    "a sum": (READ + "\n float w = v * 2;\n w += 1;\n y[t] = w;", "kernel.cu:6 `y[t] = w`"),
    "a branch": (READ + "\n if (v > 2) y[t] = 1;", "kernel.cu:4 `if (v > 2) y[t] = 1`"),
    "an index": (READ + "\n int i = v;\n y[i & 7] = 1;", "kernel.cu:5 `y[i & 7] = 1`"),
    "an index that is read": (READ + "\n int i = v;\n float w = y[i & 7];\n y[t] = w;", "kernel.cu:5 `float w = y["),
    "kept in shared memory": (READ + "\n s[t + 32] = v;", "kernel.cu:4 `s[t + 32] = v`"),
    "an atomic": (READ + "\n atomicAdd(y, v);", "kernel.cu:4 `atomicAdd(y, v)`"),
    "shuffled": (READ + "\n v += __shfl_xor_sync(~0u, v, 16);\n y[t] = v;", "kernel.cu:5 `y[t] = v`"),
    "an array of the thread": (
        "float a[3]; a[0] = s[t]; a[1] = 1; a[2] = 2;\n y[t] = a[(n + t) % 3];", "kernel.cu:4 `y[t] = a[(n + t) % 3]`",
    ),
    "a vote": (READ + "\n unsigned b = __ballot_sync(~0u, v > 2);\n y[t] = b;", "kernel.cu:4"),
}  # fmt: skip


@pytest.mark.parametrize("case", USED.values(), ids=USED)
def test_an_undefined_value_is_reported_where_it_is_used_with_the_read(case):
    body, used = case
    error = finding(body)
    assert error.kind == "uninitialised" and "kernel.cu:3" in error.message
    assert "reads s[" in error.message and "which nothing has written; the value is used in " + used in error.message


def test_a_read_and_use_in_one_line_is_told_once():
    error = finding("y[t] = s[t + 8];", threads=8)
    assert "thread 0 of block 0 reads s[8], which nothing has written" in error.message and "used" not in error.message


def test_an_element_of_a_vector_is_told_by_its_own_index():
    error = finding("float4 v = *(float4*)(s + t % 4 * 4);\n y[t] = v.x + v.y;")
    assert "thread 2 of block 0 reads s[8], which nothing has written" in error.message


SHUFFLES = {
    "a lane that the mask does not name": (
        "if (t < 16) y[t] = __shfl_down_sync(0xffff, t + 100, 8);", 32,
        "thread 8 of block 0 takes the value of lane 16, which its mask 0xffff does not name",
    ),
    "a lane that has exited": (
        "if (t >= 20) return;\n y[t] = __shfl_down_sync(~0u, t + 100, 16);", 32,
        "thread 4 of block 0 takes the value of lane 20, which has exited",
    ),
    "a lane that there is not": (
        "y[t] = __shfl_down_sync(~0u, t + 100, 16);", 20,
        "thread 4 of block 0 takes the value of lane 20, which the thread block does not have",
    ),
    "by way of a sum": (
        "int v = t;\n if (t < 16) { v += __shfl_xor_sync(0xffff, v, 16);\n y[t] = v; }", 32,
        "takes the value of lane 16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SHUFFLES.values(), ids=SHUFFLES)
def test_a_shuffle_from_a_lane_that_does_not_give_is_a_finding_once_its_value_is_used(case):
    body, threads, told = case
    error = finding(body, threads=threads)
    assert error.kind == "shuffle" and told in error.message and "kernel.cu:" in error.message
    run(body, threads=threads, strict=False)


LEGAL = {
    "out of range, a lane keeps its own": ("y[t] = __shfl_down_sync(~0u, t + 100, 8);", 32),
    "out of range of its part": ("y[t] = __shfl_down_sync(~0u, t + 100, 8, 16);", 32),
    "the sum of half a warp": (
        "if (t < 16) { int v = t; for (int o = 8; o; o /= 2) v += __shfl_down_sync(0xffff, v, o); if (!t) y[t] = v; }",
        32,
    ),
    "by the lane's number": ("int v = __shfl_down_sync(~0u, t, 8); y[t] = t < 12 ? v : 0;", 20),
}


@pytest.mark.parametrize("case", LEGAL.values(), ids=LEGAL)
def test_shuffles_whose_undefined_results_are_left_out_are_legal(case):
    run(case[0], threads=case[1])
