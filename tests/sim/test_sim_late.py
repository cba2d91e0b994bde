"""Asynchronous work in any order: what is waited for gives the same bits whenever it happens, and anything else is
reported."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import core.sim
from core.sim import KernelError

pytestmark = pytest.mark.usefixtures("screens")

# --------------------------------------------------------------------------- when work happens
AT = "__device__ unsigned at(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }\n"
# What a copy reads is written before the copy is waited for.
LATE = (
    AT
    + """
extern "C" __global__ void kernel(float* y, float* x) {
    __shared__ alignas(16) float box[32];
    int i = threadIdx.x;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at(box + i)), "l"(x + i) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
    x[i] = 7;
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    y[i] = box[i];
}"""
)
# Thread block 0 hands a bulk store's result to thread block 1 by a flag.
HANDOVER = (
    AT
    + """
__device__ unsigned flag;
extern "C" __global__ void kernel(float* y, float* x) {
    __shared__ alignas(16) float box[32];
    if (blockIdx.x == 0) {
        box[threadIdx.x] = threadIdx.x + 1;
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncwarp();
        if (threadIdx.x) return;
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 128;" :: "l"(x), "r"(at(box)) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
        asm volatile("st.release.gpu.global.u32 [%0], 1;" :: "l"(&flag) : "memory");
        return;
    }
    unsigned v;
    do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(&flag) : "memory"); while (!v);
    y[threadIdx.x] = x[threadIdx.x];
}"""
)
# Every thread block adds its own numbers to the same ones, by a reducing bulk copy.
ADD = (
    AT
    + """
extern "C" __global__ void kernel(TYPE* y, TYPE* x) {
    __shared__ alignas(16) TYPE box[32];
    box[threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x];
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
    if (threadIdx.x) return;
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.PTX [%0], [%1], 128;"
                 :: "l"(y), "r"(at(box)) : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}"""
)
SUM = """
extern "C" __global__ void kernel(TYPE* y, TYPE* x) {
    __shared__ TYPE sum;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    atomicAdd(&sum, x[threadIdx.x]);
    __syncthreads();
    y[threadIdx.x] = sum;
}"""
# cp.async, counted by an mbarrier that is looked at again and again.
COUNTED = (
    AT
    + """
extern "C" __global__ void kernel(float* y, float* x) {
    __shared__ alignas(16) float box[128];
    __shared__ alignas(8) unsigned long long bar;
    int i = threadIdx.x;
    if (i == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], 128;" :: "r"(at(&bar)) : "memory");
    __syncthreads();
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at(box + i)), "l"(x + i) : "memory");
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" :: "r"(at(&bar)) : "memory");
    unsigned done;
    do asm volatile("{.reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p;}"
                    : "=r"(done) : "r"(at(&bar)) : "memory");
    while (!done);
    y[i] = box[127 - i];
}"""
)
# Two stages, each with an mbarrier of its own: the second mbarrier also counts the first stage's copies.
STAGES = (
    AT
    + """
extern "C" __global__ void kernel(float* y, float* x) {
    __shared__ alignas(16) float box[128];
    __shared__ alignas(8) unsigned long long bar[2];
    int i = threadIdx.x;
    if (i < 2) asm volatile("mbarrier.init.shared::cta.b64 [%0], 64;" :: "r"(at(bar + i)) : "memory");
    __syncthreads();
    for (int s = 0; s < 2; s++) {
        int n = 64 * s + i;
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at(box + n)), "l"(x + n) : "memory");
        asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" :: "r"(at(bar + s)) : "memory");
    }
    for (int s = 0; s < 2; s++) {
        unsigned done;
        do asm volatile("{.reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p;}"
                        : "=r"(done) : "r"(at(bar + s)) : "memory");
        while (!done);
        y[64 * s + i] = box[64 * s + 63 - i];
    }
}"""
)
LEAVE = (
    AT
    + """
extern "C" __global__ void kernel(float* y, float* x) {
    __shared__ alignas(16) float box[32];
    __shared__ alignas(8) unsigned long long bar;
    if (threadIdx.x) return;
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(at(&bar)) : "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 128;" :: "r"(at(&bar)) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], 128, [%2];"
                 :: "r"(at(box)), "l"(x), "r"(at(&bar)) : "memory");
}"""
)
PEER = (
    AT
    + """
extern "C" __global__ void __cluster_dims__(2) kernel(float* y, float* x) {
    __shared__ float box[32];
    box[threadIdx.x] = x[threadIdx.x];
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
    unsigned peer, rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(peer) : "r"(at(box + threadIdx.x)), "r"(rank ^ 1));
    float value;
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(peer) : "memory");
    y[blockIdx.x * 32 + threadIdx.x] = value;
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory"); // last
}"""
)


def run_kernel(source: str, grid: int = 1, block: int = 32, type_: Any = np.float32, strict: bool = True) -> Any:
    y = np.zeros(128, type_)
    x = (np.random.default_rng(1).standard_normal(128) * 10.0 ** (np.arange(128) % 8)).astype(type_)
    core.sim.run(source, "kernel", grid, block, [y, x], strict=strict)
    return y, x


def typed(source: str, name: str, ptx: str) -> str:
    return source.replace("TYPE", name).replace("PTX", ptx)


LEGAL: dict[str, tuple[str, dict[str, Any]]] = {
    "late": (LATE.replace("x[i] = 7;", "").replace("y[i]", "x[i] = 7; y[i]"), {}),
    "handover": (HANDOVER.replace(".read", ""), {"grid": 2}),
    "integers added by copies": (typed(ADD, "unsigned", "u32"), {"grid": 4, "type_": np.uint32}),
    "integers added by threads": (typed(SUM, "unsigned", "u32"), {"block": 128, "type_": np.uint32}),
    "counted": (COUNTED, {"block": 128}),
    "stages": (STAGES, {"block": 64}),
    "peer": (PEER, {"grid": 2}),
}
UNTIMELY: dict[str, tuple[str, dict[str, Any], str]] = {
    "a copy's source is overwritten": (LATE, {}, "order"),
    "a bulk store is handed over after wait_group.read": (HANDOVER, {"grid": 2}, "in flight"),
    "floats are added by copies": (typed(ADD, "float", "f32"), {"grid": 4}, "order"),
    "floats are added by threads": (typed(SUM, "float", "f32"), {"block": 128}, "order"),
    "the mbarrier is not asked": (COUNTED.replace("while (!done)", "while (false)"), {"block": 128}, "in flight"),
    "a bulk copy without a wait": (LEAVE, {}, "exit in flight"),
    "a peer may be gone": (re.sub(r"asm[^;]*;[^;]*;[^;]*; // last", "", PEER), {"grid": 2}, "exit in flight"),
}


@pytest.mark.parametrize("name", LEGAL)
def test_work_that_is_waited_for_gives_the_same_bits_whenever_it_happens(name):
    source, settings = LEGAL[name]
    strict, x = run_kernel(source, **settings)
    fast, _ = run_kernel(source, **settings, strict=False)
    assert strict.any() and strict.tobytes() == fast.tobytes()


@pytest.mark.parametrize("name", UNTIMELY)
def test_what_depends_on_when_work_happens_is_reported(name):
    source, settings, kind = UNTIMELY[name]
    with pytest.raises(KernelError) as caught:
        run_kernel(source, **settings)
    assert caught.value.kind == kind, str(caught.value)


def test_a_result_of_chance_names_launch_buffer_and_element():
    with pytest.raises(KernelError) as caught:
        run_kernel(LATE)
    text = str(caught.value)
    assert "kernel kernel, a grid of (1, 1, 1) thread blocks of (32, 1, 1) threads" in text
    assert "first y[0]" in text
