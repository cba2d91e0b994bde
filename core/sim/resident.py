"""A batch: thread blocks that are resident together, and the groups in which their threads run.

Groups and their batch know each other; the parts that strict mode and the counter need are below, in machine/lanes.py
and machine/resident_blocks.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.counting import Counter
from core.sim.machine.budget import BARRIER, LIMIT, Turns
from core.sim.machine.geometry import Shape
from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.machine.waiting import Barrier, ClusterBarrier, MBarrier, Reduction, Waiting
from core.sim.machine.warps import Meeting
from core.sim.machine.wording import Wording
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction
from core.sim.strict.watch import Watch
from core.sim.tape_rows import TapeRecorder

Observer = Callable[[Lanes, Instruction, str, Array, Array, int, str], None]


class Group(Lanes):
    """Lanes of a batch that run in lockstep."""

    def __init__(self, batch: Batch, blocks: Array, threads: Array, number: int = 0) -> None:
        """blocks, threads: as of Lanes."""
        live, fresh = threads < batch.threads, list(batch.program.fresh)
        super().__init__(blocks, threads, live, fresh, batch.shared_offsets(blocks), number)
        self.batch = batch
        self.meeting: Meeting | None = None  # lanes that wait in bar.warp.sync
        self.turns = Turns(len(batch.numbers) if batch.watch is not None else 0)

    def go_on(self) -> None:
        """Release the lanes whose bar.warp.sync is complete."""
        met = self.meeting.leave(self.live) if self.meeting is not None else np.zeros(0, np.int64)
        if not met.size:
            return
        assert self.meeting is not None
        before, chosen = self.state(), np.zeros(self.lanes, np.bool_)
        chosen[met] = True
        self.select(chosen)
        self.met()
        self.restore(before)
        places = self.meeting.resume[met]
        for pc in np.unique(places):
            lanes = np.zeros(self.lanes, np.bool_)
            lanes[met[places == pc]] = True
            self.queue(int(pc), lanes)

    def met(self) -> None:
        """The lanes concerned have met in bar.warp.sync."""
        self.batch.progress += 1
        if self.batch.watch is not None:
            self.batch.watch.clocks.warp_sync(self)


class Batch(ResidentBlocks):
    """Resident thread blocks with their barriers, groups and observers.

    limit: branches that a thread block may take.
    """

    def __init__(
        self, program: Program, words: Wording, shape: Shape, numbers: Array, smem: int, limit: int = LIMIT
    ) -> None:
        super().__init__(program, words, shape, numbers, smem)
        self.limit = limit
        self.groups: list[Group] = []
        self.barriers: dict[tuple[int, int], Barrier] = {}
        self.mbarriers: dict[tuple[int, int], MBarrier] = {}
        self.cluster_barriers: dict[int, ClusterBarrier] = {}
        self.observe: Observer | None = None
        self.watch: Watch | None = None
        self.shuffle: np.random.Generator | None = None  # the order of atomics at one address; lane order without
        self.counter: Counter | None = None
        self.tape: TapeRecorder | None = None
        self.lanes_run: dict[int, int] = {}  # block of instructions -> lanes that ran it, summed
        self.looped: dict[int, int] = {}  # branch back to an earlier instruction -> times that any lane took it
        self.printed: list[str] = []  # the output of its threads
        self.progress = 0
        self.polled = 0  # loads that look for writes of other thread blocks

    # ------------------------------------------------------------------ barriers and exits
    def exited(self, g: Group, lanes: Array) -> None:
        """Lanes exit; a barrier that only waited for them completes."""
        if self.watch is not None:
            self.watch.leaving.lanes(g, np.flatnonzero(lanes))
        g.leave(lanes)
        self.progress += 1
        blocks, counts = np.unique(g.block[lanes], return_counts=True)
        self.remaining[blocks] -= counts
        if self.watch is not None and (self.remaining[blocks] == 0).any():
            self.watch.leaving.blocks(g, blocks[self.remaining[blocks] == 0], int(np.flatnonzero(lanes)[0]))
        if self.barriers:
            for key in [k for k in self.barriers if k[0] in set(blocks.tolist()) and k[1] >= 0]:
                self.complete(key)
        if g.meeting is not None:
            g.go_on()
        for number in self.cluster_barriers:
            self.settle_cluster(number)

    def arrive(
        self, g: Group, ins: Instruction, number: int, count: int | None, pc: int, wait: bool,
        reduction: Reduction | None = None,
    ) -> bool:  # fmt: skip
        """The lanes concerned arrive at barrier `number`, for `count` threads (None: all that have not exited).

        True when every lane may go straight on; else the lanes are parked until their barrier completes. Either way
        they then have the result of the reduction.
        """
        g.turns.taken += BARRIER
        index = g.indices()
        blocks = g.block[index]
        present, counts = np.unique(blocks, return_counts=True)
        expected = self.remaining[present] if count is None else np.full(len(present), count)
        if not self.barriers and (counts == expected).all():
            self.progress += 1
            if self.watch is not None:
                self.watch.straight(g, ins, index, count)
            if self.tape is not None:
                for block, arrived in zip(present.tolist(), counts.tolist(), strict=True):
                    self._taped(index[blocks == block], block, number, arrived, arrived)
            if reduction is not None:
                size = len(self.numbers)
                votes = np.bincount(blocks, weights=reduction.yes[index], minlength=size).astype(np.int64)
                result = reduction.result(votes, np.bincount(blocks, minlength=size))
                reduction.write(g, g.spread_back(result[blocks]))
            return True
        for block, arrived in zip(present.tolist(), counts.tolist(), strict=True):
            lanes = index[blocks == block]
            barrier = self.barriers.setdefault((block, number), Barrier())
            wanted = int(expected[0]) if count is None else count
            if barrier.count not in (None, wanted) and count is not None:
                raise self.fault(
                    ins, "barrier count", f"barrier {number} is for {barrier.count} threads here and {count} there", g,
                    int(index[0]),
                )  # fmt: skip
            barrier.count = wanted if count is not None else None
            barrier.arrived += arrived
            barrier.whole = barrier.whole and count is None
            self._taped(lanes, block, number, barrier.arrived, count or int(self.remaining[block]))
            if self.watch is not None:
                self.watch.arrived(g, ins, lanes, barrier)
            if reduction is not None:
                barrier.votes += int(reduction.yes[lanes].sum())
            if wait:
                barrier.waiting.append(Waiting(g, lanes, pc, reduction))
                g.waiting += arrived
        for block in present.tolist():
            self.complete((block, number))
        return False

    def _taped(self, lanes: Array, block: int, number: int, arrived: int, expected: int) -> None:
        if self.tape is not None:
            self.tape.visits("barrier", lanes, block, number, arrived, expected, complete=arrived >= expected)

    def complete(self, key: tuple[int, int]) -> None:
        barrier = self.barriers[key]
        if barrier.arrived < (int(self.remaining[key[0]]) if barrier.count is None else barrier.count):
            return
        del self.barriers[key]
        if self.watch is not None:
            self.watch.completed(barrier, key[0])
        self.progress += 1
        for waiting in barrier.waiting:
            waiting.reduced(barrier.votes, barrier.arrived)
            self.resume(waiting)

    def resume(self, waiting: Waiting) -> None:
        lanes = np.zeros(waiting.group.lanes, np.bool_)
        lanes[waiting.index] = True
        waiting.group.waiting -= len(waiting.index)
        waiting.group.queue(waiting.pc, lanes)

    # ------------------------------------------------------------------ barriers of phases
    def settle_phase(self, barrier: MBarrier) -> None:
        """Complete the phase when all have arrived and all bytes are there."""
        if barrier.pending == 0 and barrier.bytes_left == 0:
            barrier.phase ^= 1
            barrier.pending = barrier.expected
            self.progress += 1
            self._wake(barrier)

    def landed(self, barrier: MBarrier, count: int) -> None:
        """Bytes of a copy that an mbarrier counts are there."""
        barrier.bytes_left -= count
        self.settle_phase(barrier)

    def settle_cluster(self, number: int) -> None:
        """Complete a cluster's barrier when every thread that has not exited is there."""
        barrier = self.cluster_barriers[number]
        size = self.shape.cluster
        if barrier.arrived and barrier.arrived >= int(self.remaining[number * size : (number + 1) * size].sum()):
            barrier.arrived = 0
            barrier.phase += 1
            self.progress += 1
            self._wake(barrier)

    def _wake(self, barrier: MBarrier | ClusterBarrier) -> None:
        barrier.order.turn()
        waiting, barrier.waiting = barrier.waiting, []
        for one in waiting:
            if self.watch is not None:
                self.watch.clocks.learn(barrier.order, one.group, one.index)
            self.resume(one)

    def release(self) -> None:
        """Drop registers and shared memory. Group and batch know each other, so that they would stay until Python looks
        for such cycles: it counts objects, not bytes, and a large launch has a gigabyte of registers."""
        self.groups = []
        self.shared, self.shared_views = np.zeros(0, np.uint8), {}
