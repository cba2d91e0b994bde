"""Thread blocks of a cluster in strict mode: none may exit while a peer can still reach into its shared memory."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim
from core.sim import KernelError

HEAD = """
__device__ unsigned at(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
__device__ unsigned peer(unsigned a, unsigned rank) {
    unsigned found;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(found) : "r"(a), "r"(rank));
    return found;
}
__device__ void together() {
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ void wait(unsigned bar) {
    asm volatile("{.reg .pred P; W: mbarrier.try_wait.parity.shared::cta.b64 P, [%0], 0; @!P bra W; }"
                 :: "r"(bar) : "memory");
}
extern "C" __global__ void __cluster_dims__(2) kernel(float* y, float* x) {
    __shared__ alignas(16) float box[32];
    __shared__ alignas(8) unsigned long long bar;
    unsigned t = threadIdx.x, rank = blockIdx.x % 2;
    if (t == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(at(&bar)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    box[t] = t;
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    together();
"""


def asm(text: str, *operands: str, out: str = "") -> str:
    return f'asm volatile("{text};" : {out} : {", ".join(operands)} : "memory");'


THERE, HERE = '"r"(peer(at(box + t), 0))', '"r"(at(box))'
BAR, PEERS_BAR = '"r"(at(&bar))', '"r"(peer(at(&bar), 0))'
STORE = "y[blockIdx.x * 32 + t]"
READ = "float v; " + asm("ld.shared::cluster.f32 %0, [%1]", THERE, out='"=f"(v)') + f" {STORE} = v;"
WRITE = asm("st.shared::cluster.f32 [%0], %1", THERE, '"f"(3.f)')
ADD = asm("red.relaxed.cluster.shared::cluster.add.f32 [%0], %1", '"r"(peer(at(box), 0))', '"f"(1.f)')
ARRIVE = asm("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0]", PEERS_BAR)
EXPECT = asm("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 128", BAR)
COPY = "cp.async.bulk.shared::cluster"
MULTICAST = asm(
    f"{COPY}.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], 128, [%2], %3",
    HERE, '"l"(x)', BAR, '"h"((unsigned short)3)',
)  # fmt: skip
PUSH = asm(
    f"{COPY}.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], 128, [%2]",
    '"r"(peer(at(box), 0))', HERE, PEERS_BAR,
)  # fmt: skip
STORE_ASYNC = asm(
    "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2]", THERE, '"f"(7.f)', PEERS_BAR
)
WAITS = f"wait(at(&bar)); {STORE} = box[t];"
SLOWLY = "for (int i = 0; i < 9; i++) __nanosleep(9);"
FIRST = f"if (t == 0) {{ {EXPECT} }} together();"
SENDS = f"{FIRST} if (rank == 0 && t == 0) {{ {MULTICAST} }}"
PUSHES = f"if (rank == 0 && t == 0) {{ {EXPECT} }} together(); if (rank == 1 && t == 0) {{ {PUSH} }}"
ASYNC = f"if (rank == 0 && t == 0) {{ {EXPECT} }} together(); if (rank == 1) {{ {STORE_ASYNC} }}"


def by_one(what: str) -> str:
    return f"if (rank == 1 && t == 0) {{ {what} }}"


# name -> (what the two thread blocks of each cluster do, whether it is legal)
CASES = {
    "a read of a peer": (f"if (rank == 1) {{ {READ} }}", False),
    "a read of a peer, then a cluster barrier": (f"if (rank == 1) {{ {READ} }} together();", True),
    "a write to a peer": (f"if (rank == 1) {{ {WRITE} }}", False),
    "a write to a peer that is gone": (f"if (rank == 0) return; {SLOWLY} {WRITE}", False),
    "a write to a peer, then a cluster barrier": (f"if (rank == 1) {{ {WRITE} }} together();", True),
    "an addition to a peer": (by_one(ADD), False),
    "an addition to a peer, then a cluster barrier": (f"{by_one(ADD)} together();", True),
    "an arrival that nobody waits for": (by_one(ARRIVE), False),
    "an arrival at a peer that is gone": (f"if (rank == 0) return; {SLOWLY} {by_one(ARRIVE)}", False),
    "an arrival that the peer waits for": (f"{by_one(ARRIVE)} if (rank == 0) wait(at(&bar));", True),
    "an arrival, then a cluster barrier": (f"{by_one(ARRIVE)} together();", True),
    "a multicast that both wait for": (f"{SENDS} {WAITS}", True),
    "a multicast that the other does not wait for": (f"{SENDS} if (rank == 0) {{ {WAITS} }}", False),
    "a multicast to one that is gone": (
        f"{FIRST} if (rank == 1) return; {SLOWLY} if (t == 0) {{ {MULTICAST} }} {WAITS}", False,
    ),
    "a bulk copy to a peer that waits": (f"{PUSHES} if (rank == 0) {{ {WAITS} }}", True),
    "a bulk copy to a peer that does not": (PUSHES, False),
    "an asynchronous store that the peer waits for": (f"{ASYNC} if (rank == 0) {{ {WAITS} }}", True),
    "an asynchronous store that nobody waits for": (ASYNC, False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_thread_block_stays_until_its_peers_are_done_with_it(name):
    body, legal = CASES[name]
    arguments = [np.zeros(128, np.float32), np.arange(64, dtype=np.float32)]
    if legal:
        core.sim.run(f"{HEAD}    {body}\n}}", "kernel", 4, 32, arguments)
        assert "asynchronous store" not in name or (arguments[0][:32] == 7).all()
        return
    with pytest.raises(KernelError) as caught:
        core.sim.run(f"{HEAD}    {body}\n}}", "kernel", 4, 32, arguments)
    assert caught.value.kind == "exit in flight", str(caught.value)
