"""Simulates the PTX that NVRTC emits, on NumPy: every kernel on a machine without a GPU. It knows no op and no tensor.

`core.sim.run` and `load` run any CUDA kernel (standalone.py, arguments by packing.py). The rooms, from the ground up:
  ptx/           reading: PTX and its .cu file, a kernel's instructions in one list
  machine/       the state of a launch: memory, thread blocks, groups of threads in lockstep
  strict/        strict mode: races, barriers, undefined values
  counting.py    figures by source line
  tape.py        every instruction of every warp, lane by lane
  instructions/  one module a family of opcodes, and the table of all of them
  native/        the same instructions in C, for launches that nothing watches
  launching/     thread blocks in batches, orders of threads, the report

Fast mode is for training. Strict mode is for checks: it follows every access (strict/), does asynchronous work as late
as it may be (machine/inflight.py), and runs a kernel that has such work, polls, or takes turns by atomics, three times
in three orders, whose bits must agree (launching/thread_order.py). Findings speak of threads, elements
and source lines (machine/wording.py). docs/checks.md lists the faults that it finds, and those that it misses.

Not modelled: time, caches, the weak ordering of global memory beyond acquire and release. Layouts are implemented from
the manual. The .approx functions and the sums of tensor cores are exact and rounded once; a
chip's last bits may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of

if TYPE_CHECKING:
    from core.sim.faults import KernelError as KernelError
    from core.sim.faults import PtxError as PtxError
    from core.sim.launching.launch_report import Report as Report
    from core.sim.launching.simulator import Simulator as Simulator
    from core.sim.machine.address_space import Memory as Memory
    from core.sim.packing import Map as Map
    from core.sim.packing import Pointer as Pointer
    from core.sim.standalone import KernelFile as KernelFile
    from core.sim.standalone import load as load
    from core.sim.standalone import run as run

__getattr__ = imports_of(__name__)
