"""The rate of kernels in the simulator on this machine, for the estimate of a run.

It is the rate of a kernel's instructions, several times lower in native code than a GPU's and thousands of times
without a C compiler, and each launch costs something however small it is.
"""

from __future__ import annotations

import time

from core.devices import Pace

PER_FLOP = 1.3  # instructions of a thread that kernels run for a FLOP; counted in a step of a small GPT-2
PER_LAUNCH = 8e6  # FLOPs in whose time the simulator gets through a step of a plan that does next to nothing
LEAST_SIMULATED = 120e6  # instructions of a thread per second, on any machine; for the same reason as LEAST
LEAST_NATIVE = 4e9  # the same in native code

# The inner loop of a matrix product: two values of a tile for every product, `threads` of them side by side.
PROBE_THREADS, PROBE_TURNS, PROBE_BLOCKS = 256, 64, 32
PROBE_PTX = f"""
.version 8.7
.target sm_90a
.address_size 64
.visible .entry probe()
{{
.reg .f32 %f<4>; .reg .b32 %r<4>; .reg .pred %p; .shared .align 16 .b8 tile[2048];
mov.u32 %r0, %tid.x; mad.lo.u32 %r1, %r0, 4, 1024; mov.u32 %r2, 0; mov.f32 %f2, 0f00000000;
st.shared.f32 [%r1], %f2; st.shared.f32 [%r1+1024], %f2; bar.sync 0;
loop: ld.shared.f32 %f0, [%r1]; ld.shared.f32 %f1, [%r1+1024]; fma.rn.f32 %f2, %f0, %f1, %f2;
add.u32 %r2, %r2, 1; setp.lt.u32 %p, %r2, {PROBE_TURNS}; @%p bra loop;
ret;
}}
"""


def simulated_rate(tries: int = 8) -> float:
    """FLOP/s of kernels in the simulator here; the best of a few launches of a small one."""
    from core.sim import Simulator  # a run on another device needs nothing of it
    from core.sim.native.choice import natively

    simulator, best = Simulator(PROBE_PTX), 0.0
    for _ in range(tries):
        start = time.perf_counter()
        report = simulator.launch("probe", (PROBE_BLOCKS,), (PROBE_THREADS,), [], reach=True)
        best = max(best, report.lanes / (time.perf_counter() - start))
    return max(best, LEAST_NATIVE if natively(None, "") else LEAST_SIMULATED) / PER_FLOP


def simulated_pace() -> Pace:
    """The simulator's, measured now."""
    return Pace(simulated_rate(), PER_LAUNCH, "or so, for the kernels of the steps alone")
