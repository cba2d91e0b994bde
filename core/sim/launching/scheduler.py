"""Runs a launch: thread blocks in batches, their groups in turn, barriers between them.

Fast mode puts as many thread blocks into one lockstep group as keep NumPy busy; thread blocks of different
batches never run at the same time, which is legal for any kernel whose thread blocks do not wait for each
other. A kernel that polls memory runs under the fair scheduler instead: every warpgroup a group of its own,
taken in a seeded random order and preempted, so that a thread block may wait for another. Strict mode's further runs
are of this kind too (Order), since they must take another order than the first.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from core.sim.faults import KernelError
from core.sim.machine.budget import SLICE, VARIABLE
from core.sim.machine.geometry import WARP, WARPGROUP
from core.sim.machine.waiting import ClusterBarrier, MBarrier
from core.sim.machine.warps import Meeting
from core.sim.resident import Batch, Group

LANES = 16384  # of a fast group: the registers of that many lanes fit a core's cache
QUANTUM = 64  # blocks of instructions that a group runs under the fair scheduler before another has its turn
STALLED = 300  # turns in which threads only poll, after which that is called a deadlock


@dataclass(frozen=True)
class Order:
    """groups: "one" of all lanes; one for each warpgroup, "across" all clusters in lockstep or "apart"; "warps": one
    for each warp, which run in turn, each until it waits or has ended."""

    groups: str = "one"
    seed: int = 0


class Scheduler:
    """Runs one batch of thread blocks to its end."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def run(self, order: Order) -> None:
        """Run all thread blocks to their end; under several groups a random one runs for a while."""
        batch = self.batch
        batch.groups = self._grouped(order.groups)
        chance = random.Random(order.seed)
        idle, before, polled = 0, batch.progress, batch.polled
        slices = order.groups in ("one", "warps")
        turn = -1
        while True:
            runnable = [g for g in batch.groups if g.fragments]
            if not runnable:
                if batch.watch is not None and batch.watch.work.later.stalled():
                    continue
                break
            if order.groups == "warps":
                g = next((g for g in runnable if g.number >= turn), runnable[0])
                turn = g.number
            else:
                g = chance.choice(runnable)
            self.advance(g, min(SLICE, batch.limit + 1) if slices else chance.randint(1, QUANTUM))
            if g.fragments and g.turns.over(batch.limit, len(batch.numbers)):
                raise self._endless(g)
            if batch.watch is not None:
                batch.watch.work.later.between_turns()
            # A deadlock: in each turn some thread polls and no thread does anything else.
            idle = idle + 1 if batch.progress == before and batch.polled != polled else 0
            before, polled = batch.progress, batch.polled
            if idle > 2 * len(batch.groups) and batch.watch is not None and batch.watch.work.later.stalled():
                continue
            if idle > STALLED + 20 * len(batch.groups):
                raise self.hopeless(g, "deadlock", "the kernel polls memory that no thread changes any more")
        self.finish()

    def _grouped(self, how: str) -> list[Group]:
        """Lanes in groups. Warps are never parted; warpgroups of different ranks in a cluster are."""
        blocks = np.repeat(np.arange(len(self.batch.numbers)), self.batch.padded)
        threads = np.tile(np.arange(self.batch.padded), len(self.batch.numbers))
        if how == "one":
            return [Group(self.batch, blocks, threads)]
        if how == "warps":
            warps = len(threads) // WARP
            return [Group(self.batch, blocks[n * WARP :][:WARP], threads[n * WARP :][:WARP], n) for n in range(warps)]
        place = blocks if how == "apart" else blocks % self.batch.shape.cluster
        key = place * -(-self.batch.padded // WARPGROUP) + threads // WARPGROUP
        return [Group(self.batch, blocks[key == k], threads[key == k], i) for i, k in enumerate(np.unique(key))]

    def advance(self, g: Group, quantum: int) -> None:
        """Run a group's lowest fragments until none is left, or for `quantum` blocks of instructions."""
        batch, blocks, fragments = self.batch, self.batch.program.blocks, g.fragments
        left = quantum
        while fragments and left > 0:
            pc = min(fragments)
            lanes = fragments.pop(pc)
            limit = min(fragments, default=1 << 62)
            g.select(lanes)
            turns, before = g.turns, g.turns.taken
            charged = None if turns.by_block is None else np.unique(g.block[g.indices()])
            while True:
                block = blocks[pc]
                g.pc = pc
                if batch.counter is not None:
                    batch.counter.ran(g, pc)
                if batch.watch is not None:
                    batch.watch.undefined.run(g, block)
                elif batch.tape is not None:
                    batch.tape.run(g, block)
                else:
                    for step in block.steps:
                        step(g)
                batch.executed[block.start] = batch.executed.get(block.start, 0) + 1
                batch.lanes_run[block.start] = batch.lanes_run.get(block.start, 0) + g.count
                pc = block.end(g)
                left -= 1
                if pc <= block.start:
                    turns.taken += 1
                    if pc < 0:
                        break
                if pc >= limit or left <= 0:
                    g.queue(pc, lanes)
                    break
            if charged is not None and turns.by_block is not None:
                turns.by_block[charged] += turns.taken - before

    def finish(self) -> None:
        """No group can run: all have exited, or one waits for an event that cannot happen."""
        if self.batch.watch is not None:
            self.batch.watch.work.later.finish()
        for g in self.batch.groups:
            if g.meeting is not None:
                self._waits_in_vain(g, g.meeting)
        for (_, number), counted in self.batch.barriers.items():
            if counted.waiting:
                waiting = counted.waiting[0]
                ins = self.batch.program.instructions[waiting.pc - 1]
                name = f"barrier {number}" if number >= 0 else "the cluster's barrier"
                raise self.batch.fault(
                    ins,
                    "barrier never completes",
                    f"{name} never completes: {counted.arrived} threads wait, the others have exited or wait elsewhere",
                    waiting.group,
                    int(waiting.index[0]),
                    hint="every thread of the thread block must reach the barrier",
                )

        phased: list[MBarrier | ClusterBarrier] = [
            *self.batch.mbarriers.values(),
            *self.batch.cluster_barriers.values(),
        ]
        for one in [waiting for barrier in phased for waiting in barrier.waiting]:
            ins = self.batch.program.instructions[one.pc - 1]
            message = "threads wait for a phase that never completes: too few arrivals, or bytes that never arrive"
            raise self.batch.fault(ins, "deadlock", message, one.group, int(one.index[0]))

    def _waits_in_vain(self, g: Group, meeting: Meeting) -> None:
        lane = meeting.waits()
        if lane is None:
            return
        other, mask = meeting.awaited(lane, g.live), int(meeting.masks[lane])
        message = f"lane {lane % WARP} waits for lane {other}, which its mask {mask:#x} names and which does not arrive"
        ins = self.batch.program.instructions[int(meeting.resume[lane]) - 1]
        hint = "every lane that a mask names reaches a barrier of the warp, with the same mask"
        raise self.batch.fault(ins, "member absent", message, g, lane, hint=hint)

    def _endless(self, g: Group) -> KernelError:
        pc, lane = looping(g)
        ins = self.batch.program.instructions[min(pc, len(self.batch.program.instructions) - 1)]
        message = f"still looping: a thread block has taken {self.batch.limit:,} branches, and does not end"
        hint = f"a kernel that takes more: limit= of core.sim.run, --branches of core sim, check and trace, {VARIABLE}"
        return self.batch.fault(ins, "endless", message, g, lane, hint=hint)

    def hopeless(self, g: Group, kind: str, message: str) -> KernelError:
        lane = int(np.flatnonzero(g.live)[0])
        at = min(g.fragments, default=len(self.batch.program.instructions))
        ins = self.batch.program.instructions[min(at, len(self.batch.program.instructions) - 1)]
        return self.batch.fault(ins, kind, message, g, lane)


def looping(g: Group) -> tuple[int, int]:
    """(program counter, lane): of a thread of the thread block that loops."""
    by_block = g.turns.by_block
    chosen = g.block == (0 if by_block is None else int(by_block.argmax()))
    for pc, lanes in sorted(g.fragments.items()):
        here = np.flatnonzero(chosen & (g.live if lanes is None else lanes))
        if here.size:
            return pc, int(here[0])
    return min(g.fragments), int(np.flatnonzero(g.live)[0])
