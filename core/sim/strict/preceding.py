"""Strict mode's rule of the preceding kernel: no thread accesses global memory before its `griddepcontrol.wait`.

Such a kernel may start before the one in front of it has ended. Nor may it have `ld.global.nc`, which declares that
the memory does not change while the kernel runs: the assembler may move it before the wait. Without the instruction
there is nothing to check.
"""

from __future__ import annotations

import numpy as np

from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.program import Program, per_program
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction

END = spaces.PARAMETERS + spaces.PARAMETER_BYTES  # of the kernel's parameters, which are global memory here


@per_program
def waits(program: Program) -> bool:
    """Whether a kernel waits for the preceding one."""
    return any(ins.names[:2] == ("griddepcontrol", "wait") for ins in program.instructions)


class Preceding:
    """The threads of one batch that have not waited yet: `early`, by thread block and thread; None once all have."""

    def __init__(self, batch: ResidentBlocks) -> None:
        self.batch = batch
        self.early: Array | None = None
        self.waits = waits(batch.program)
        if self.waits:
            self.early = np.ones((len(batch.numbers), batch.padded), np.bool_)
            self.early[:, batch.threads :] = False

    def waited(self, g: Lanes, lanes: Array) -> None:
        if self.early is not None:
            self.early[g.block[lanes], g.thread[lanes]] = False
            self.early = self.early if self.early.any() else None

    def accessed(self, g: Lanes, ins: Instruction, index: Array, lanes: Array, width: int, how: str) -> None:
        """An access to global memory at byte positions `index`. Raises KernelError for a thread that has not waited."""
        if not self.waits or "const" in ins.names:
            return
        text = "global memory is read by ld.global.nc, which may move before griddepcontrol.wait"
        hint = "the parameter without __restrict__, the load without __ldg"
        early = np.zeros(1, np.int64)
        if "nc" not in ins.names:
            if self.early is None:
                return
            text = "global memory is accessed before griddepcontrol.wait"
            hint = "the wait before it, as dependent_start() at the kernel's start has it"
            early = np.flatnonzero(self.early[g.block[lanes], g.thread[lanes]] & (index >= END))
        if early.size:
            address = int(np.broadcast_to(index, (len(lanes),))[early[0]])
            text = f"{text}: {self.batch.words.access(ins, 'global', address, width, how)}"
            raise self.batch.fault(ins, "early access", text, g, int(lanes[early[0]]), address, hint, how=how)
