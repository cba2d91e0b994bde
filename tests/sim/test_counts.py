"""Counts of kernels whose counts follow from arithmetic: memory, banks, atomics, instructions."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim
from core.errors import UsageError
from core.sim.counting import flops_of
from core.sim.ptx.syntax import NOWHERE, Instruction


def run(source, args, kernel="k", grid=1, block=32):
    return core.sim.run(source, kernel, grid, block, args, strict=False, count=True).counts


def counts_of(counted, line):
    """Of a line of the only file."""
    file = next(place.file for place in counted.lines if place.file)
    return counted.in_files([file])[file, line]


# --- global memory --------------------------------------------------------------------------------------------------

COPY = 'extern "C" __global__ void k(float* y, const float* x) { y[threadIdx.x] = x[INDEX]; }'


@pytest.mark.parametrize(
    "index, sectors, fewest",
    [
        ("threadIdx.x", 4, 4),  # 128 bytes in a row
        ("threadIdx.x + 1", 5, 4),  # the same, not on a sector's start
        ("31 - threadIdx.x", 4, 4),  # the order of lanes does not matter
        ("threadIdx.x * 2", 8, 4),
        ("threadIdx.x * 8", 32, 4),  # a sector for each lane
        ("threadIdx.x * 24", 32, 4),
        ("0", 1, 1),  # all lanes ask for the same
        ("threadIdx.x / 16", 1, 1),
    ],
)
def test_a_load_moves_the_sectors_that_its_lanes_touch(index, sectors, fewest):
    x, y = np.zeros(1024, np.float32), np.zeros(32, np.float32)
    total = run(COPY.replace("INDEX", index), [y, x]).total
    assert (total.requests, total.asked) == (2, 256)
    assert (total.sectors - 4, total.fewest - 4) == (sectors, fewest), "beside the store's four"


@pytest.mark.parametrize("kind, sectors", [("float", 4), ("float2", 8), ("float4", 16), ("unsigned char", 1)])
def test_wide_loads_are_one_request_of_more_sectors(kind, sectors):
    source = COPY.replace("INDEX", "threadIdx.x").replace("float*", f"{kind}*")
    total = run(source, [np.zeros(512, np.uint8), np.zeros(512, np.uint8)]).total
    assert (total.requests, total.sectors, total.coalescing) == (2, 2 * sectors, 1)


def test_memory_is_what_was_touched_however_often():
    source = """extern "C" __global__ void k(float* y, const float* x) {
        float sum = 0;
        for (int i = 0; i < 10; i++) sum += ((volatile const float*)x)[threadIdx.x];
        y[blockIdx.x * 32 + threadIdx.x] = sum;
    }"""
    found = run(source, [np.zeros(96, np.float32), np.zeros(32, np.float32)], grid=3)
    assert found.total.asked == 3 * 11 * 128
    assert found.memory == 128 + 3 * 128


# --- shared memory --------------------------------------------------------------------------------------------------

SHARED = """extern "C" __global__ void k(float* y) {
    __shared__ float s[2048];
    s[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = ((volatile float*)s)[INDEX];
}"""


@pytest.mark.parametrize(
    "index, conflicts",
    [
        ("threadIdx.x", 0),
        ("threadIdx.x * 2", 1),  # two lanes a bank
        ("threadIdx.x * 3", 0),  # odd strides reach every bank
        ("threadIdx.x * 32", 31),  # all in one bank
        ("threadIdx.x * 33", 0),  # what padding is for
        ("5", 0),  # one word for all
        ("threadIdx.x / 2 * 32", 15),  # a word asked for twice counts once
    ],
)
def test_a_shared_access_takes_a_pass_for_each_word_of_its_busiest_bank(index, conflicts):
    source = SHARED.replace("INDEX", index)
    total = run(source, [np.zeros(32, np.float32)]).total
    assert (total.shared, total.shared_bytes, total.conflicts) == (2, 256, conflicts)


@pytest.mark.parametrize(
    "kind, stride, conflicts", [("float2", 1, 0), ("float2", 2, 2), ("float4", 1, 0), ("float4", 2, 4)]
)
def test_wide_shared_accesses_are_served_in_halves_and_quarters_of_a_warp(kind, stride, conflicts):
    source = """extern "C" __global__ void k(float* y, const TYPE* x) {
        __shared__ TYPE s[64];
        s[threadIdx.x * STRIDE] = x[threadIdx.x];
        __syncthreads();
        y[threadIdx.x] = *(float*)&s[0];
    }"""
    source = source.replace("TYPE", kind).replace("STRIDE", str(stride))
    total = run(source, [np.zeros(32, np.float32), np.zeros(128, np.float32)]).total
    assert total.conflicts == conflicts


# --- atomics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index, contended",
    [
        ("0", 31),
        ("threadIdx.x", 0),
        ("threadIdx.x / 2", 1),
        ("threadIdx.x % 4", 7),
        ("threadIdx.x < 20 ? 0 : 40 - 1", 19),
    ],
)
@pytest.mark.parametrize("memory", ["y", "s"])
def test_atomics_of_a_warp_at_one_address_take_turns(memory, index, contended):
    source = f"""extern "C" __global__ void k(unsigned* y) {{
        __shared__ unsigned s[64];
        s[threadIdx.x] = s[threadIdx.x + 32] = 0;
        __syncthreads();
        atomicAdd(&{memory}[{index}], threadIdx.x);
        __syncthreads();
        y[threadIdx.x + 64] = s[threadIdx.x];
    }}"""
    counted = run(source, [np.zeros(96, np.uint32)])
    assert (counted.total.atomics, counted.total.contended) == (1, contended)
    line = counts_of(counted, 5)
    assert (line.atomics, line.contended) == (1, contended)


# --- instructions ---------------------------------------------------------------------------------------------------

BRANCH = """extern "C" __global__ void k(float* y, int from) {
    float v = 1;
    if (threadIdx.x % 32 < from) {
        for (int i = 0; i < 100; i++) v = ((volatile float*)y)[i];
    }
    y[blockIdx.x * blockDim.x + threadIdx.x + 128] = v;
}"""


@pytest.mark.parametrize("lanes", [32, 16, 1])
def test_lanes_that_wait_at_a_branch_are_not_active(lanes):
    counted = run(BRANCH, [np.zeros(256, np.float32), np.int32(lanes)], block=64)
    line = counts_of(counted, 4)
    assert line.requests == 2 * 100 and line.active == pytest.approx(lanes / 32)
    assert run(BRANCH, [np.zeros(256, np.float32), np.int32(0)], block=64).total.requests == 2


def test_warps_that_pass_a_branch_by_are_not_counted_in_it():
    source = BRANCH.replace("threadIdx.x % 32 < from", "threadIdx.x / 32 == from")
    counted = run(source, [np.zeros(512, np.float32), np.int32(2)], block=128, grid=3)
    line = counts_of(counted, 4)
    one = run(source, [np.zeros(512, np.float32), np.int32(0)], block=32)
    alone = counts_of(one, 4)
    assert line.active == 1 and (line.instructions, line.requests) == (3 * alone.instructions, 3 * 100)


def test_warps_are_counted_and_not_the_threads_that_fill_them():
    whole, half = (run(COPY.replace("INDEX", "threadIdx.x"), [np.zeros(64, np.float32)] * 2, block=b) for b in (32, 48))
    assert half.total.instructions == 2 * whole.total.instructions
    assert (whole.total.active, half.total.active) == (1, 0.75)


def test_a_large_launch_counts_as_many_times_as_it_has_thread_blocks():
    source = 'extern "C" __global__ void k(float* y) { y[blockIdx.x * 96 + threadIdx.x] = threadIdx.x; }'
    one, many = (run(source, [np.zeros(96 * n, np.float32)], grid=n, block=96) for n in (1, 1000))
    for name in ("instructions", "threads", "requests", "sectors", "asked"):
        assert getattr(many.total, name) == 1000 * getattr(one.total, name), name
    assert many.memory == 1000 * one.memory


@pytest.mark.parametrize("expression, flops", [("v + w", 1), ("v * w + v", 2), ("v / w", 1), ("-v", 0), ("v > w", 0)])
def test_floating_point_operations_are_counted(expression, flops):
    source = f'extern "C" __global__ void k(float* y, float v, float w) {{ y[threadIdx.x] = {expression}; }}'
    total = run(source, [np.zeros(32, np.float32), np.float32(2), np.float32(3)]).total
    assert total.flops == 32 * flops


@pytest.mark.parametrize(
    "opcode, threads, flops",
    [
        ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 32, 2 * 16 * 8 * 16),
        ("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16", 128, 2 * 64 * 128 * 16),
        ("fma.rn.f32x2", 1, 4),
        ("add.s32", 1, 0),
        ("cvt.rn.bf16.f32", 1, 0),
        ("ex2.approx.ftz.f32", 1, 1),
    ],
)
def test_tensor_cores_and_packed_values_count_in_full(opcode, threads, flops):
    ins = Instruction(opcode, (), None, False, NOWHERE, opcode, tuple(opcode.split(".")))
    assert threads * flops_of(ins) == flops


def test_counting_changes_no_bit_and_is_not_done_in_strict_mode():
    source, x = COPY.replace("INDEX", "threadIdx.x ^ 5"), np.random.default_rng(0).random(32, np.float32)
    a, b = np.zeros(32, np.float32), np.zeros(32, np.float32)
    run(source, [a, x])
    assert core.sim.run(source, "k", 1, 32, [b, x], strict=False).counts is None
    assert np.array_equal(a, b) and np.array_equal(a, x[np.arange(32) ^ 5])
    with pytest.raises(UsageError, match="strict"):
        core.sim.run(source, "k", 1, 32, [b, x], count=True)
