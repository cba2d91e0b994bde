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
    assert [s.turn for s in loads] == [1, 2, 3, 4] and len({s.pc for s in loads}) == 4
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
    flying = [len(s.flying) for s in tape.steps(0, 0) if s.text.startswith("cp.async")]
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
    monkeypatch.setattr("core.sim.tape_rows.LARGEST", 1000)
    with pytest.raises(KernelError, match="a tape holds 1,000 instructions of threads") as caught:
        taped()
    assert "smaller example" in str(caught.value)


def test_a_strict_launch_is_neither_counted_nor_taped() -> None:
    with pytest.raises(UsageError, match="one at a time"):
        core.sim.run(KERNEL, "turn", 1, 32, [np.zeros(64, np.float32)] * 2 + [np.int32(1)], tape=True)


# --- barriers and asynchronous copies -------------------------------------------------------------------------------

AT = "__device__ unsigned at(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }\n"


def test_a_barrier_says_which_warps_have_come() -> None:
    """The first warp takes a longer way: of two named barriers, one waits for it, and it comes last."""
    source = """
    extern "C" __global__ void kernel(float* y, const float* x) {
        __shared__ float box[64];
        float v = x[threadIdx.x];
        if (threadIdx.x < 32) { v = v * 2; asm volatile("bar.arrive 1, 64;" ::: "memory"); }
        else asm volatile("bar.sync 1, 64;" ::: "memory");
        box[threadIdx.x] = v;
        __syncthreads();
        y[threadIdx.x] = box[63 - threadIdx.x];
    }
    """
    x, y = np.ones(64, np.float32), np.zeros(64, np.float32)
    tape = core.sim.run(source, "kernel", 1, 64, [y, x], strict=False, tape=True).tape
    assert tape is not None
    states = [(w, b) for w in (0, 1) for s in tape.steps(0, w) for b in s.barriers]
    named = {w: b for w, b in states if b.name == "barrier 1"}
    first, last = sorted(named, key=lambda w: named[w].arrived)
    assert (named[first].arrived, named[first].expected, named[first].complete) == (32, 64, False)
    assert named[first].came == ((0, first),) and named[last].came == ((0, 0), (0, 1)) and named[last].complete
    whole = [b for _, b in states if b.name == "barrier 0"]
    assert [(b.came, b.arrived, b.complete) for b in whole] == [(((0, 0), (0, 1)), 64, True)] * 2


def test_a_bulk_copy_is_in_flight_until_a_warp_has_waited_for_its_mbarrier() -> None:
    source = (
        AT
        + """
    extern "C" __global__ void kernel(float* y, float* x) {
        __shared__ alignas(16) float box[64];
        __shared__ alignas(8) unsigned long long full;
        if (threadIdx.x == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(at(&full)) : "memory");
        __syncthreads();
        if (threadIdx.x == 0) {
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 256;" :: "r"(at(&full)) : "memory");
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], 256, [%2];"
                         :: "r"(at(box)), "l"(x), "r"(at(&full)) : "memory");
        }
        asm volatile("{.reg .pred p; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0; @!p bra AGAIN;}"
                     :: "r"(at(&full)) : "memory");
        y[threadIdx.x] = box[threadIdx.x];
    }
    """
    )
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    tape = core.sim.run(source, "kernel", 1, 64, [y, x], strict=False, tape=True, count=True).tape
    assert tape is not None and (y == x).all()
    steps = list(tape.steps(0, 0))
    copy = next(s for s in steps if s.text.startswith("cp.async.bulk"))
    assert {(a.space, a.how, a.nbytes) for a in copy.accesses} == {("global", "read", 256), ("shared", "write", 256)}
    (flight,) = copy.flying
    assert (flight.kind, flight.warp, flight.since, flight.until) == ("bulk", (0, 0), copy.number, "its mbarrier")
    wait = next(s for s in steps if "try_wait" in s.text)
    assert wait.waits and len(wait.flying) == 1 and not steps[wait.number].flying
    (state,) = wait.barriers
    assert (state.name, state.kind, state.complete) == ("full", "wait", True)
    (expects,) = next(s for s in steps if "expect_tx" in s.text).barriers
    assert (expects.arrived, expects.expected, expects.bytes_left, expects.complete) == (1, 1, 256, False)


def test_copies_name_the_commit_group_that_they_are_in() -> None:
    source = (
        AT
        + """
    extern "C" __global__ void kernel(float* y, float* x) {
        __shared__ float box[2][32];
        for (int k = 0; k < 2; k++) {
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
                         :: "r"(at(&box[k][threadIdx.x])), "l"(&x[k * 32 + threadIdx.x]) : "memory");
            asm volatile("cp.async.commit_group;" ::: "memory");
        }
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        y[threadIdx.x] = box[0][threadIdx.x];
        asm volatile("cp.async.wait_all;" ::: "memory");
        y[threadIdx.x + 32] = box[1][threadIdx.x];
    }
    """
    )
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    tape = core.sim.run(source, "kernel", 1, 32, [y, x], strict=False, tape=True).tape
    assert tape is not None
    flying = [[f.until for f in s.flying] for s in tape.steps(0, 0) if s.text.startswith("cp.async")]
    assert flying == [["a commit"], ["group 0"], ["group 0", "a commit"], ["group 0", "group 1"], ["group 1"], []]


def test_a_tape_of_some_thread_blocks_has_only_those_and_counts_are_of_all() -> None:
    x, out = np.arange(256, dtype=np.float32), np.zeros(512, np.float32)
    given = [out, x, np.int32(256)]
    report = core.sim.run(KERNEL, "turn", 4, 64, given, strict=False, count=True, tape=[1, 3])
    whole = core.sim.run(KERNEL, "turn", 4, 64, given, strict=False, count=True).counts
    assert report.tape is not None and report.counts is not None and whole is not None
    assert report.tape.warps == [(1, 0), (1, 1), (3, 0), (3, 1)] and report.counts.total == whole.total
    assert 2 * report.tape.counts().instructions == whole.total.instructions


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_race_names_its_two_accesses() -> None:
    source = """extern "C" __global__ void kernel(float* y, const float* x) {
        __shared__ float box[64];
        box[threadIdx.x] = x[threadIdx.x];
        y[threadIdx.x] = box[63 - threadIdx.x];
    }"""
    with pytest.raises(KernelError) as caught:
        core.sim.run(source, "kernel", 1, 64, [np.zeros(64, np.float32)] * 2)
    before, here = caught.value.accesses
    assert (before.block, before.thread, before.line, before.how) == (0, 63, 3, "write")
    assert (here.block, here.thread, here.line) == (0, 0, 4) and here.address == before.address
    assert before.ptx.startswith("st.shared") and here.ptx.startswith("ld.shared")


def test_an_access_out_of_bounds_leaves_the_tape_until_then() -> None:
    source = 'extern "C" __global__ void kernel(float* y) { y[threadIdx.x] = 1; y[threadIdx.x + 9] = 2; }'
    with pytest.raises(KernelError, match="out of bounds|reads|writes") as caught:
        core.sim.run(source, "kernel", 1, 32, [np.zeros(32, np.float32)], strict=False, tape=True)
    (here,), tape = caught.value.accesses, caught.value.tape
    assert tape is not None and (here.block, here.thread) == (0, 23)
    *_, last = tape.steps(0, 0)
    assert last.text == here.ptx and last.location.line == here.line
