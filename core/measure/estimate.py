"""How long a run takes on this machine at least, before anything heavy: the FLOPs of its steps at a rate measured here.

On the cpu that is the rate of its matrix products: elementwise work, validation and small matrices come on top, a
quarter for GPT-2 124M, as much again for a toy. In the simulator it is the rate of a kernel's instructions, several
times lower in native code and thousands of times without a C compiler, and each launch costs something however small it
is; validation and reading the kernels come on top.
"""

from __future__ import annotations

import time

import numpy as np

from core.devices import Pace
from core.errors import UsageError
from core.threads import cores
from core.words import duration

LONG = 3600.0  # seconds: a run estimated longer than this is not started by accident
PROBE = 0.05  # seconds that the measurement takes on a quiet machine
TRIES = 24  # products at least: on a busy machine most of them wait for a core, and the best one counts
LEAST = 20e9  # FLOP/s of a core: other work on the machine must not make a run look longer than it is
PER_FLOP = 1.3  # instructions of a thread that kernels run for a FLOP; counted in a step of a small GPT-2
PER_LAUNCH = 8e6  # FLOPs in whose time the simulator gets through a step of a plan that does next to nothing
LEAST_SIMULATED = 120e6  # instructions of a thread per second, on any machine; for the same reason as LEAST
LEAST_NATIVE = 4e9  # the same in native code


def gemm_rate(seconds: float = PROBE, size: int = 256) -> float:
    """FLOP/s of f32 matrix products here; the best of as many as fit into `seconds`, and LEAST a core at least."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)
    best, tries, began = float("inf"), 0, time.perf_counter()
    while (start := time.perf_counter()) < began + seconds or (tries < TRIES and start < began + 2.0):
        np.matmul(a, a, out=out)
        best, tries = min(best, time.perf_counter() - start), tries + 1
    return max(2.0 * size**3 / best, LEAST * cores())


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


def cpu_pace() -> Pace:
    """The cpu's, measured now."""
    return Pace(gemm_rate(), 0.0, "or more, for matrix products alone")


def simulated_pace() -> Pace:
    """The simulator's, measured now."""
    return Pace(simulated_rate(), PER_LAUNCH, "or so, for the kernels of the steps alone")


def estimate_seconds(parameters: int, tokens: int, rate: float, besides: float = 0.0) -> float:
    """6 FLOPs a parameter and token, forward and backward (arXiv:2001.08361), and those `besides`, at `rate` FLOP/s."""
    return (6.0 * parameters * tokens + besides) / rate


def refuse_long(seconds: float, device: str, *, steps: int, allowed: bool, where: str) -> None:
    """UsageError when a run on a device would take more than an hour and `allowed` is false."""
    if seconds > LONG and not allowed:
        raise UsageError(
            f"{where}: {steps:,} steps would take {duration(seconds)} or more on the {device}; what "
            f"takes over {duration(LONG)} is not started unasked",
            hint="lower train.steps or train.tokens_per_step, train on a GPU, or pass --long",
        )
