"""The rate of kernels in the simulator on this machine, by the executor that a run will use, for a run's estimate.

A small product with sums in registers is timed. Kernels of a step run slower than it, by a factor that was measured in
steps of GPT-2s on each executor, and each launch has a fixed cost.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.devices import Pace
from core.threads import cores

if TYPE_CHECKING:
    from core.device.simulated import SimDevice

# The inner loop of a matrix product: 8 x 8 sums of each of `threads` threads, `turns` times.
PROBE_THREADS, PROBE_TURNS, PROBE_BLOCKS, SIDE = 256, 16, 32, 8
LOADS = "\n".join(
    f"ld.shared.v4.f32 {{%{name}{i},%{name}{i + 1},%{name}{i + 2},%{name}{i + 3}}}, [%r1+{offset + 4 * i}];"
    for name, offset in (("a", 0), ("b", 1024))
    for i in (0, 4)
)
SUMS = "\n".join(
    f"fma.rn.f32 %c{SIDE * i + j}, %a{i}, %b{j}, %c{SIDE * i + j};" for i in range(SIDE) for j in range(SIDE)
)
ZEROS = "\n".join(f"mov.f32 %c{i}, 0f00000000;" for i in range(SIDE * SIDE))
PROBE_PTX = f"""
.version 8.7
.target sm_90a
.address_size 64
.visible .entry probe()
{{
.reg .f32 %a<{SIDE}>; .reg .f32 %b<{SIDE}>; .reg .f32 %c<{SIDE * SIDE}>;
.reg .b32 %r<3>; .reg .pred %p; .shared .align 16 .b8 tile[2048];
mov.u32 %r0, %tid.x; and.b32 %r0, %r0, 31; mad.lo.u32 %r1, %r0, 32, 1024; mov.u32 %r2, 0; {ZEROS}
loop: {LOADS}
{SUMS}
add.u32 %r2, %r2, 1; setp.lt.u32 %p, %r2, {PROBE_TURNS}; @%p bra loop;
ret;
}}
"""


@dataclass(frozen=True)
class ExecutorCost:
    """per_flop: thread-instructions of the probe in whose time an executor does a FLOP of a step. per_launch: FLOPs in
    whose time it gets through a step of a plan that does next to nothing. least: thread-instructions of the probe in a
    second of a core, on any machine: other work must not make a run look longer than it is."""

    per_flop: float
    per_launch: float
    least: float


NATIVE = ExecutorCost(0.9, 5e7, 6e9)
INTERPRETER = ExecutorCost(2.6, 8e6, 200e6)


def simulated_pace(device: SimDevice) -> Pace:
    """The open simulator's, measured now."""
    from core.sim.native.choice import natively  # for runs in the simulator

    cost = NATIVE if natively(device.executor, "") else INTERPRETER
    rate = max(probed_rate(device.executor), cost.least) * cores() / cost.per_flop
    return Pace(rate, cost.per_launch, "or so, for the kernels of the steps alone")


def probed_rate(executor: str | None, tries: int = 8) -> float:
    """Thread-instructions of the probe in a second of a core; the best of a few launches."""
    from core.sim import Simulator

    simulator, best = Simulator(PROBE_PTX), 0.0
    for _ in range(tries):
        start = time.process_time()
        report = simulator.launch("probe", (PROBE_BLOCKS,), (PROBE_THREADS,), [], reach=True, executor=executor)
        best = max(best, report.lanes / (time.process_time() - start))
    return best
