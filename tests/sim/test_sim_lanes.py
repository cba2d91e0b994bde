"""Lanes of one warp in strict mode: nothing but __syncwarp, a barrier or a flag orders them since Volta."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import core.sim
from core.sim import KernelError

HEAD = """
__device__ int lock;
extern "C" __global__ void kernel(float* y, float* x) {
    __shared__ float s[64];
    int t = threadIdx.x;
    float v = 0;
    s[t] = t; s[t + 32] = t;
    __syncthreads();
"""
# order of two accesses -> (body, with SYNC where they must be parted)
ORDERS = {
    "read after write": "M[t] = 1; SYNC v = M[t ^ 1];",
    "write after write": "M[t] = 1; SYNC M[t ^ 1] = 2;",
    "write after read": "v = M[t ^ 1]; SYNC M[t] = v;",
    "lane 0 writes in a branch, others read": "if (t == 0) M[0] = 5; SYNC v = M[0];",
    "others read, lane 0 writes in a branch": "v = M[0]; SYNC if (t == 0) M[0] = v + 1;",
    "four floats at a time": "float4 f = ((P float4*)M)[t & 7]; SYNC if (t > 7) M[t & 7] = f.y;",
}
REDUCTIONS = {
    "read and written at once": "for (int o = 16; o; o /= 2) M[t] += M[t + o];",
    "__syncwarp at the end of a turn only": "for (int o = 16; o; o /= 2) { M[t] += M[t + o]; __syncwarp(); }",
    "__syncwarp before the write only": "for (int o = 16; o; o /= 2) { v = M[t + o]; __syncwarp(); M[t] += v; }",
    "a shuffle in between": "M[t] = 3; v = __shfl_xor_sync(0xffffffff, v, 1); v += M[t ^ 1];",
    "a fence in between": "M[t] = 3; __threadfence(); v += M[t ^ 1];",
    "a fence of the block in between": "M[t] = 3; __threadfence_block(); v += M[t ^ 1];",
    "a vote in between": "v = M[t ^ 1]; if (__any_sync(0xffffffff, v >= 0)) M[t] = v;",
}
LEGAL = {
    "a reduction with two __syncwarp a turn": "for (int o = 16; o; o /= 2) { v += M[t + o]; __syncwarp(); M[t] = v; "
    "__syncwarp(); }",
    "each lane its own": "for (int i = 0; i < 3; i++) { M[t] += i; v += M[t]; }",
    "all read one": "for (int i = 0; i < 3; i++) v += M[i];",
    "a barrier of the block": "M[t] = 3; __syncthreads(); v = M[t ^ 1]; __syncthreads(); M[t] = v;",
    "atomics": "atomicAdd((float*)&M[t & 3], 1.f); __syncwarp(); v = M[t & 3];",
    "a lock that lanes hold in turn": "for (bool done = false; !done;) if (!atomicCAS(&lock, 0, 1)) { __threadfence(); "
    "M[0] = M[0] + 1; __threadfence(); atomicExch(&lock, 0); done = true; }",
}
MEMORIES = {
    "shared": "float* M = s;",
    "volatile shared": "volatile float* M = s;",
    "global": "float* M = x;",
    "volatile global": "volatile float* M = x;",
}


def run(memory: str, body: str) -> Any:
    plain = "const volatile" if "volatile" in memory else ""
    if "float4" in body and plain:
        body = body.replace("float4 f = ((P float4*)M)[t & 7]", "struct { float y; } f = {M[(t & 7) * 4 + 1]}")
    body = body.replace("P float4", "float4")
    y, x = np.zeros(32, np.float32), np.zeros(64, np.float32)
    text = f"{HEAD}    {MEMORIES[memory]}\n    {body}\n    __syncthreads();\n    y[t] = v + M[t];\n}}"
    core.sim.run(text, "kernel", 1, 32, [y, x])


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("order", ORDERS)
def test_two_lanes_at_one_place_need_a_syncwarp_between_them(memory, order):
    run(memory, ORDERS[order].replace("SYNC", "__syncwarp();"))
    with pytest.raises(KernelError) as caught:
        run(memory, ORDERS[order].replace("SYNC", ""))
    assert caught.value.kind == "race"
    assert "__syncwarp" in caught.value.hint


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_that_a_warp_runs_in_step_orders_nothing(memory, name):
    with pytest.raises(KernelError) as caught:
        run(memory, REDUCTIONS[name])
    assert caught.value.kind == "race"


@pytest.mark.parametrize("name", LEGAL)
def test_what_orders_the_lanes_of_a_warp_raises_no_alarm(name):
    for memory in MEMORIES:
        if name != "atomics" or "volatile" not in memory:
            run(memory, LEGAL[name])


def test_lanes_that_write_one_element_in_one_instruction_must_agree_on_it():
    run("shared", "M[t / 2] = t / 2 * 3;")
    run("global", "M[5] = 1;")
    for memory in MEMORIES:
        for body in ("M[t / 2] = t;", "M[5] = t;", "if (t > 3) M[t & 4] = t;"):
            with pytest.raises(KernelError) as caught:
                run(memory, body)
            assert caught.value.kind == "race" and "each element needs one owner" in caught.value.message
