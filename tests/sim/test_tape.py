"""The tape of a launch: what each instruction of each warp did, lane by lane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from random_kernels import random_kernel

import core.sim
from core.errors import UsageError
from core.sim import KernelError
from core.sim.tape import Tape

KERNEL = """
extern "C" __global__ void turn(float* out, const float* x, int n) {
    __shared__ float tile[32][32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x % 32][threadIdx.x / 32] = x[i];
    __syncthreads();
    float v = tile[threadIdx.x % 32][threadIdx.x / 32];
    v += __shfl_xor_sync(0xffffffff, v, 16);
    if (threadIdx.x % 2 == 0 && i < n) out[2 * i] = v;
}
"""


def taped(grid: int = 2, block: int = 64) -> tuple[Tape, np.ndarray]:
    x, out = np.arange(grid * block, dtype=np.float32), np.zeros(2 * grid * block, np.float32)
    report = core.sim.run(KERNEL, "turn", grid, block, [out, x, np.int32(100)], strict=False, tape=True)
    assert report.tape is not None
    return report.tape, out


def one(tape: Tape, what: str, warp: tuple[int, int] = (1, 1)) -> Any:
    return next(step for step in tape.steps(*warp) if what in step.text)


def test_a_tape_has_every_warp_and_its_steps_in_order() -> None:
    tape, _ = taped()
    assert tape.warps == [(0, 0), (0, 1), (1, 0), (1, 1)]
    steps = list(tape.steps(1, 1))
    assert [s.number for s in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].text.startswith("ret")


def test_a_load_names_buffer_elements_values_and_sectors() -> None:
    step = one(taped()[0], "ld.global")
    (access,) = step.accesses
    assert (access.space, access.how, access.buffer, access.item) == ("global", "read", "x", 4)
    assert access.index == tuple(range(96, 128)) and step.values == tuple(range(96, 128))
    assert (access.sectors, access.needed) == (4, 4)


def test_a_store_of_every_other_lane_says_which_lanes_are_off_and_what_moves_in_vain() -> None:
    tape, out = taped()
    step = one(tape, "st.global", (0, 0))
    (access,) = step.accesses
    assert step.on == 0x55555555
    assert access.index[:4] == (0, -1, 4, -1)
    assert (access.sectors, access.needed) == (8, 2)
    assert out[access.index[2]] == 2 + 18


def test_shared_memory_has_its_passes_over_the_banks() -> None:
    (access,) = one(taped()[0], "st.shared", (0, 0)).accesses
    assert access.buffer == "tile" and access.index[:3] == (0, 32, 64)
    assert access.passes == 31  # all lanes write one bank


def test_a_shuffle_says_whom_each_lane_reads() -> None:
    step = one(taped()[0], "shfl", (0, 0))
    assert step.source == tuple(lane ^ 16 for lane in range(32))
    assert step.values is not None


def test_a_barrier_is_a_step_that_waits() -> None:
    assert one(taped()[0], "bar.sync").waits


def test_an_unrolled_loop_is_told_turn_by_turn() -> None:
    source = """
    extern "C" __global__ void sum(float* out, const float* x) {
        float v = 0;
        #pragma unroll
        for (int k = 0; k < 4; k++) v += x[k * 32 + threadIdx.x];
        out[threadIdx.x] = v;
    }
    """
    x, out = np.arange(128, dtype=np.float32), np.zeros(32, np.float32)
    tape = core.sim.run(source, "sum", 1, 32, [out, x], strict=False, tape=True).tape
    assert tape is not None
    loads = [s for s in tape.steps(0, 0) if s.text.startswith("ld.global")]
    assert [s.copy for s in loads] == [1, 2, 3, 4] and [s.turn for s in loads] == [1, 1, 1, 1]
    assert [s.accesses[0].index[0] for s in loads] == [0, 32, 64, 96]


def test_a_loop_counts_its_turns() -> None:
    source = """
    extern "C" __global__ void sum(float* out, const float* x, int n) {
        float v = 0;
        #pragma unroll 1
        for (int k = 0; k < n; k++) v += x[k * 32 + threadIdx.x];
        out[threadIdx.x] = v;
    }
    """
    x, out = np.arange(128, dtype=np.float32), np.zeros(32, np.float32)
    tape = core.sim.run(source, "sum", 1, 32, [out, x, np.int32(4)], strict=False, tape=True).tape
    assert tape is not None
    assert [s.turn for s in tape.steps(0, 0) if s.text.startswith("ld.global")] == [1, 2, 3, 4]


def test_copies_in_flight_are_counted_between_commit_and_wait() -> None:
    ptx = """.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 x) {
  .reg .b64 %p; .reg .b32 %s, %t; .shared .align 16 .b8 room[1024];
  ld.param.u64 %p, [x]; mov.u32 %t, %tid.x; shl.b32 %t, %t, 4; mov.u32 %s, room; add.u32 %s, %s, %t;
  cvt.u64.u32 %p, %t; ld.param.u64 %p, [x];
  cp.async.ca.shared.global [%s], [%p], 16;
  cp.async.commit_group;
  cp.async.ca.shared.global [%s], [%p], 16;
  cp.async.commit_group;
  cp.async.wait_group 1;
  cp.async.wait_group 0;
  ret;
}
"""
    tape = core.sim.run(ptx, "k", 1, 32, [np.zeros(64, np.float32)], strict=False, tape=True).tape
    assert tape is not None
    flying = [s.in_flight for s in tape.steps(0, 0) if s.text.startswith("cp.async")]
    assert flying == [1, 1, 2, 2, 1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_the_sums_of_a_tape_are_the_counts(seed: int) -> None:
    drawn = random_kernel(seed)

    def report(**how: bool) -> Any:
        return core.sim.run(drawn.text, "kernel", drawn.grid, drawn.threads, list(drawn.arrays()), strict=False, **how)

    assert report(tape=True).tape.counts() == report(count=True).counts.total


def test_a_tape_changes_no_result() -> None:
    drawn = random_kernel(5)
    plain, watched = drawn.arrays(), drawn.arrays()
    core.sim.run(drawn.text, "kernel", drawn.grid, drawn.threads, list(plain), strict=False)
    core.sim.run(drawn.text, "kernel", drawn.grid, drawn.threads, list(watched), strict=False, tape=True)
    assert all(np.array_equal(a, b) for a, b in zip(plain, watched, strict=True))


def test_a_launch_that_is_too_long_for_a_tape_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.sim.tape.LARGEST", 1000)
    with pytest.raises(KernelError, match="a tape holds 1,000 instructions of threads") as caught:
        taped()
    assert "smaller example" in str(caught.value)


def test_a_launch_is_strict_counted_or_taped() -> None:
    with pytest.raises(UsageError, match="one at a time"):
        core.sim.run(KERNEL, "turn", 1, 32, [np.zeros(64, np.float32)] * 2 + [np.int32(1)], tape=True)
