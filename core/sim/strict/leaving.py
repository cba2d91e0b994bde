"""Strict mode's exits: no asynchronous work of a thread may outlive it, and no peer of its cluster may need its block.

Shared memory of a thread block belongs to another after the block's exit. So every access of a peer of the cluster to
it (a load, a store, a multicast, an arrival at an mbarrier) must happen before the block exits.
"""

from __future__ import annotations

import numpy as np

from core.sim.faults import KernelError
from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.ptx.register_types import Array
from core.sim.strict.clocks import Clocks
from core.sim.strict.races import At
from core.sim.strict.underway import UnderWay

KIND = "exit in flight"
TOGETHER = "a cluster barrier before the end"


class Leaving:
    """The exits of one batch. work: its asynchronous work in flight."""

    def __init__(self, batch: ResidentBlocks, clocks: Clocks, work: UnderWay) -> None:
        self.batch, self.clocks, self.work = batch, clocks, work
        blocks = len(batch.numbers)
        self.gone = np.zeros((blocks, clocks.clock.shape[1]), np.int32)  # clocks of exited warps, by block
        self.reached = np.zeros((blocks, clocks.team), np.int32)  # by block, when each warp last reached into it
        self.by: dict[tuple[int, int], int] = {}  # the thread of the grid that did, by block and column

    # ------------------------------------------------------------------ accesses of peers
    def accessed(self, at: At) -> None:
        """An access to shared memory: remembered where it is a peer's."""
        block = at.places // (self.batch.stride // self.work.shared.grain)
        peers = np.flatnonzero(block != at.warps // self.clocks.block_warps)
        for place in peers.tolist():
            self._reaches(int(block[place]), int(at.warps[place]), int(at.threads[place]))

    def arrives(self, g: Lanes, lane: int, block: int) -> None:
        """A lane arrives at an mbarrier of a thread block."""
        if block != int(g.block[lane]):
            everyone = self.clocks.placed(g)
            self._reaches(block, int(everyone.warps[lane]), int(everyone.threads[lane]))

    def _reaches(self, block: int, warp: int, thread: int) -> None:
        column = int(self.clocks.column[warp])
        self.reached[block, column] = self.clocks.now[warp]
        self.by[block, column] = thread

    # ------------------------------------------------------------------ exits
    def lanes(self, g: Lanes, lanes: Array) -> None:
        """Lanes exit: nothing of theirs may be under way except targets of bulk stores."""
        for name, line in g.queues.items():
            for work in line.work if name != "store" else ():
                left = np.isin(work.lanes, lanes)
                if left.any():
                    operation = {"copy": "cp.async", "bulk": "bulk store", "wgmma": "wgmma"}[name]
                    message = f"{{who}} exits while its {operation} is under way"
                    raise self._fault(g, message, int(work.lanes[left][0]), "wait_group 0 before the end")
        for warp in self.clocks.here(g, lanes).tolist():
            block = warp // self.clocks.block_warps
            self.gone[block] = np.maximum(self.gone[block], self.clocks.clock[warp])

    def blocks(self, g: Lanes, blocks: Array, lane: int) -> None:
        """Thread blocks have exited: no copy may be under way, and no peer of the cluster may use their memory."""
        for block in blocks.tolist():
            name = self.batch.words.block(int(self.batch.numbers[block]))
            if self.work.coming[block]:
                message = f"{name} exits during a copy into its shared memory"
                raise self._fault(g, message, lane, "wait for the copy's mbarrier before the end")
            late = np.flatnonzero(self.reached[block] > self.gone[block, : self.clocks.team])
            if late.size:
                peer = self.batch.words.of_grid(self.by[block, int(late[0])])
                message = f"{name} exits while {peer} may still use its shared memory or an mbarrier in it"
                raise self._fault(g, message, lane, TOGETHER)

    def _fault(self, g: Lanes, message: str, lane: int, hint: str) -> KernelError:
        ins = self.batch.program.instructions[min(g.pc, len(self.batch.program.instructions) - 1)]
        return self.batch.fault(ins, KIND, message, g, lane, hint=hint)
