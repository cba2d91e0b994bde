"""Instructions of a warp whose lanes name each other by masks, and where ptxas puts shared variables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import core.sim
from core.kernels.nvrtc import Kernel, compile_ptx, resources
from core.sim import Simulator
from core.sim.ptx.state_spaces import SHARED_START

BOTH = pytest.mark.parametrize("strict", [False, True], ids=["fast", "strict"])
LANES = np.arange(32)
ODD, EVEN, LOW = 0xAAAAAAAA, 0x55555555, 0xFFFF


def kernel(body: str, strict: bool, threads: int = 32, prelude: str = "") -> list[int]:
    """The ints that `body`, run by each thread as `t`, leaves in y[t]."""
    y = np.zeros(threads, np.int32)
    text = prelude + 'extern "C" __global__ void k(int* y) { int t = threadIdx.x; ' + body + " }"
    core.sim.run(text, "k", 1, threads, [y], strict=strict)
    return y.tolist()


def refused(body: str, strict: bool = False) -> core.sim.KernelError:
    with pytest.raises(core.sim.KernelError) as caught:
        kernel(body, strict)
    return caught.value


def by(key: np.ndarray, function) -> list[int]:
    """`function` of the lanes with the same key, for each lane."""
    return [int(function(LANES[key == k])) for k in key]


HALVES = "unsigned m = t & 1 ? 0xAAAAAAAAu : 0x55555555u; "
THIRDS = "unsigned m = __match_any_sync(~0u, t % 3); "
MASKS = {
    HALVES + "y[t] = __reduce_add_sync(m, t);": by(LANES % 2, np.sum),
    THIRDS + "y[t] = __reduce_add_sync(m, t);": by(LANES % 3, np.sum),
    THIRDS + "y[t] = __reduce_min_sync(m, t);": by(LANES % 3, np.min),
    THIRDS + "y[t] = __reduce_max_sync(m, t - 40);": by(LANES % 3, lambda x: x.max() - 40),
    THIRDS + "y[t] = __reduce_or_sync(m, 1u << (t % 5));": by(LANES % 3, lambda x: np.bitwise_or.reduce(1 << x % 5)),
    THIRDS + "y[t] = __reduce_xor_sync(m, t);": by(LANES % 3, np.bitwise_xor.reduce),
    THIRDS + "y[t] = __reduce_and_sync(m, ~t);": by(LANES % 3, lambda x: np.bitwise_and.reduce(~x)),
    HALVES + "y[t] = __popc(__ballot_sync(m, t < 7));": by(LANES % 2, lambda x: (x < 7).sum()),
    HALVES + "y[t] = __all_sync(m, t & 1);": by(LANES % 2, lambda x: x[0]),
    HALVES + "y[t] = __any_sync(m, t == 5);": by(LANES % 2, lambda x: (x == 5).any()),
    HALVES + "y[t] = __shfl_sync(m, t, t & 1);": (LANES % 2).tolist(),
    HALVES + "y[t] = __popc(__match_any_sync(m, t / 8));": [4] * 32,
    HALVES + "int p; y[t] = __popc(__match_all_sync(m, t & 1, &p)) + p;": [17] * 32,
    HALVES + "__syncwarp(m); y[t] = 1;": [1] * 32,
    # a set of lanes in each arm of a branch, each with its own mask: cooperative groups' binary_partition
    "unsigned odd = __ballot_sync(~0u, t % 3 == 0), m = t % 3 ? ~odd : odd;"
    "if (t % 3) y[t] = __reduce_add_sync(m, t); else y[t] = __reduce_add_sync(m, 2 * t);": by(
        LANES % 3 == 0, lambda x: x.sum() * (2 if x[0] == 0 else 1)
    ),
    # one set of lanes inside of another's warp, the rest elsewhere
    "if (t < 24) { unsigned m = t < 10 ? 0x3ffu : 0xfffc00u; y[t] = __reduce_add_sync(m, 1); } else y[t] = 5;": [
        *[10] * 10, *[14] * 14, *[5] * 8,
    ],
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("body", MASKS)
def test_each_set_of_lanes_works_by_itself(body, strict):
    assert kernel(body, strict) == MASKS[body]


@BOTH
def test_a_leader_is_elected_in_each_set_of_lanes(strict):
    body = """unsigned m = t % 3 == 0 ? 0x49249249u : ~0x49249249u; unsigned leader; int chosen;
    asm("{.reg .pred p; elect.sync %0|p, %2; selp.b32 %1, 1, 0, p;}" : "=r"(leader), "=r"(chosen) : "r"(m));
    y[t] = leader * 2 + chosen;"""
    assert kernel(body, strict) == [2 * (t % 3 > 0) + (t < 2) for t in range(32)]


@BOTH
def test_sums_by_label_over_several_warps(strict):
    """labeled_partition and an aggregated add: two warps with different masks in one instruction."""
    body = "unsigned m = __match_any_sync(~0u, t % (2 + t / 32)); y[t] = __reduce_add_sync(m, 1);"
    assert kernel(body, strict, 64) == [16] * 32 + [[11, 11, 10][t % 3] for t in range(32)]


NOT_NAMED = {
    "y[t] = __shfl_xor_sync(0xffff, t, 16);": 16,
    "y[t] = __ballot_sync(0xffff, 1);": 16,
    "y[t] = __any_sync(0xffff0000, 1);": 0,
    "y[t] = __reduce_add_sync(0xff, t);": 8,
    "y[t] = __match_any_sync(0xffffff0f, t);": 4,
    "__syncwarp(0xffff); y[t] = 1;": 16,
    "y[t] = __shfl_sync(t == 9 ? 0xfffffdffu : ~0u, t, 0);": 9,
    "if (t < 20) y[t] = __shfl_down_sync(0xffff, t, 8);": 16,
}


@BOTH
@pytest.mark.parametrize("body", NOT_NAMED)
def test_a_lane_that_its_own_mask_does_not_name_is_an_error(body, strict):
    error = refused(body, strict)
    assert error.kind == "not named"
    assert f"lane {NOT_NAMED[body]} runs this, and its mask " in error.message and "kernel.cu:1" in error.message
    assert f"thread {NOT_NAMED[body]} of block 0" in error.message


ABSENT = {
    "if (t < 8) y[t] = __any_sync(0xffff, 1); else y[t] = 3;": "lane 8 does not reach",
    "y[t] = __shfl_sync(t ? ~0u : 1u, t, 0);": "lane 1 comes with the mask 0xffffffff, which names lane 0",
    "if (t < 16) { y[t] = 1; __syncwarp(); y[t] = 2; } else { __syncwarp(0xffff0000); y[t] = 3; } __syncthreads();": (
        "lane 0 waits for lane 16"
    ),
}


@BOTH
@pytest.mark.parametrize("body", ABSENT)
def test_a_lane_that_is_named_comes_with_the_same_mask(body, strict):
    error = refused(body, strict)
    assert error.kind == "member absent" and ABSENT[body] in error.message


@BOTH
def test_syncwarp_in_both_arms_of_a_branch_is_one_barrier(strict):
    """PTX ISA: bar.warp.sync waits for a bar.warp.sync with the same mask, wherever it is."""
    body = """__shared__ int s[32];
    if (t < 16) { s[t] = 1; __syncwarp(); y[t] = s[t + 16]; } else { s[t] = 5; __syncwarp(); y[t] = s[t - 16]; }"""
    assert kernel(body, strict) == [5] * 16 + [1] * 16


@BOTH
def test_syncwarp_does_not_wait_for_lanes_that_have_exited(strict):
    body = "__shared__ int s[32]; if (t > 19) return; s[t] = t; __syncwarp(); y[t] = s[19 - t];"
    assert kernel(body, strict) == [*range(19, -1, -1), *[0] * 12]


# --------------------------------------------------------------------------- shared variables
LAYOUTS = {  # declarations, then uses -> where dynamic shared memory begins, seen in ptxas's cubins
    ("extern __shared__ float room[];", "__shared__ int s[13]; s[t] = t; y[t] = s[12 - t] + room[t];"): 64,
    ("extern __shared__ __align__(32) char room[];", "__shared__ int s[13]; s[t] = t; y[t] = s[12 - t] + room[t];"): 64,
    ("extern __shared__ __align__(128) char room[];", "__shared__ int s[3]; s[t] = t; y[t] = s[2 - t] + room[t];"): 128,
    ("extern __shared__ __align__(1024) char room[];", "__shared__ int s[3]; s[t] = t; y[t] = s[2 - t] + room[t];"): (
        1024
    ),
    (
        "extern __shared__ __align__(256) char room[]; extern __shared__ char rest[];",
        "__shared__ __align__(64) int s[80]; s[t] = t; y[t] = s[79 - t] + room[t] + rest[t];",
    ): 512,
    (
        "extern __shared__ __align__(256) char room[]; "
        'extern "C" __global__ void other(char* y) { y[threadIdx.x] = room[0]; } extern __shared__ int own[];',
        "__shared__ int s[3]; s[t] = t; y[t] = s[2 - t] + own[t];",
    ): 256,
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=[str(i) for i in range(len(LAYOUTS))])
def test_dynamic_shared_memory_begins_where_ptxas_puts_it(layout):
    before, body = layout
    text = f'{before} extern "C" __global__ void k(int* y) {{ int t = threadIdx.x; {body} }}'
    found = Kernel(Path("kernel.cu"), "k", text=text)
    assert resources([found], "sm_90a")["k"].shared == LAYOUTS[layout]
    assert Simulator(compile_ptx(found).ptx).program("k").shared_size - SHARED_START == LAYOUTS[layout]


@BOTH
@pytest.mark.parametrize("align", [16, 32, 64, 128, 256, 512, 1024])
def test_an_extern_array_keeps_its_alignment_behind_static_ones(align, strict):
    body = """__shared__ unsigned s[13]; if (t < 13) s[t] = t * t; room[t] = 1; __syncthreads();
    y[t] = (unsigned)__cvta_generic_to_shared(room); y[t + 32] = s[12 - t % 13] + room[31 - t];"""
    text = f'extern __shared__ __align__({align}) unsigned char room[]; extern "C" __global__ void k(unsigned* y) '
    y = np.zeros(64, np.uint32)
    core.sim.run(f"{text} {{ int t = threadIdx.x; {body} }}", "k", 1, 32, [y], smem=32, strict=strict)
    assert (y[:32] % align == 0).all() and (strict or set(y[:32].tolist()) == {SHARED_START + max(64, align)})
    assert y[32:].tolist() == [(12 - t % 13) ** 2 + 1 for t in range(32)]


def test_another_kernels_static_array_takes_no_room():
    text = """__device__ int sum(int* s, int t) { return s[t]; }
    __shared__ int big[9000];
    extern "C" __global__ void other(int* y) { big[threadIdx.x] = 1; __syncthreads(); y[0] = big[0]; }
    extern "C" __global__ void third(int* y) { big[threadIdx.x] = 2; __syncthreads(); y[0] = big[1]; }
    extern "C" __global__ void k(int* y) { __shared__ int s[4]; s[threadIdx.x] = 3; __syncthreads(); y[0] = s[0]; }"""
    found = Kernel(Path("kernel.cu"), "k", text=text)
    simulator = Simulator(compile_ptx(found).ptx)
    assert [simulator.program(k).shared_used - SHARED_START for k in ("k", "other")] == [16, 36000]
