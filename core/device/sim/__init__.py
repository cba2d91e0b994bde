"""Runs the PTX that NVRTC emits, on NumPy: every kernel on a machine without a GPU. It knows no op and no tensor.

parser -> program -> scheduler, with the opcodes' functions in one module per family (see opcodes.py).

Fast mode is for training. Strict mode is for checks: it follows every access (strict.py, whose rooms are clocks.py,
shadow.py, races.py, barriers.py, underway.py, leaving.py, accumulators.py), does asynchronous work as late as it may be
(inflight.py), and runs a kernel that has such work, polls, or takes turns by atomics, three times in three orders,
whose bits must agree (simulator.py, strict_orders). Findings speak of threads, elements and source lines (words.py;
source.py and declared.py read the .cu, pointers.py follows addresses). docs/checks.md lists what is found, and what is
not.

Not modelled: time, caches, the weak ordering of global memory beyond acquire and release, and whether our reading of
a layout is right. The .approx functions and the sums of tensor cores are exact and rounded once; a chip's last bits
may differ.
"""

from core.device.sim.errors import KernelError, PtxError
from core.device.sim.memory import Memory
from core.device.sim.report import Report
from core.device.sim.simulator import Simulator

__all__ = ["KernelError", "Memory", "PtxError", "Report", "Simulator"]
