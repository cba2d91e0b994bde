"""Runs a launch: thread blocks in batches, their groups in turn, barriers between them.

Fast mode puts as many thread blocks into one lockstep group as keep NumPy busy; thread blocks of different
batches never run at the same time, which is legal for any kernel whose thread blocks do not wait for each
other. A kernel that polls memory runs under the fair scheduler instead: every warpgroup a group of its own,
taken in a seeded random order and preempted, so that a thread block may wait for another. Strict mode's further runs
are such as well (Order), since they are to find another order than the first.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from core.sim.counting import Counter
from core.sim.faults import KernelError
from core.sim.instructions.collectives import go_on
from core.sim.instructions.mbarrier import ClusterBarrier, MBarrier, settle_cluster
from core.sim.machine import address_space as layout
from core.sim.machine.budget import BARRIER, LIMIT, SLICE, VARIABLE
from core.sim.machine.group import Group
from core.sim.machine.special import special
from core.sim.machine.warps import Meeting
from core.sim.machine.wording import Words
from core.sim.ptx.parser import Instruction
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import Array
from core.sim.strict.watch import Watch

LANES = 16384  # of a fast group: registers of that many lanes still lie in a core's cache
WARP = 32
WARPGROUP = 128
QUANTUM = 64  # blocks of instructions that a group runs under the fair scheduler before another has its turn
STALLED = 300  # turns in which threads only poll, after which that is called a deadlock
Observer = Callable[[Group, Instruction, str, Array, Array, int, str], None]


@dataclass
class Waiting:
    """Lanes of a group that wait, and where they go on."""

    group: Group
    index: Array
    pc: int


@dataclass
class Barrier:
    """One barrier of one thread block. `values` are the operands of a reduction, by lane."""

    arrived: int = 0
    count: int | None = None  # threads, where the instruction names them
    known: Array | None = None  # strict mode: the clock of those who came
    came: list[tuple[Instruction, Array]] = field(default_factory=list)  # strict mode: who, at which instruction
    waiting: list[Waiting] = field(default_factory=list)
    whole: bool = True  # it is of all threads of the thread block


@dataclass(frozen=True)
class Shape:
    """The geometry of a launch."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: int = 1

    @property
    def threads(self) -> int:
        return int(np.prod(self.block))

    @property
    def blocks(self) -> int:
        return int(np.prod(self.grid))


@dataclass(frozen=True)
class Order:
    """groups: "one" of all lanes; one for each warpgroup, "across" all clusters in lockstep or "apart"."""

    groups: str = "one"
    seed: int = 0


class Batch:
    """Thread blocks that are resident together: their shared memory, barriers and groups."""

    def __init__(
        self, program: Program, words: Words, shape: Shape, numbers: Array, smem: int, limit: int = LIMIT
    ) -> None:
        self.program: Program = program
        self.words = words
        self.memory = words.memory
        self.shape: Shape = shape
        self.numbers = numbers  # of the thread blocks, in the grid
        self.limit = limit  # branches that a thread block may take
        self.threads: int = shape.threads
        self.padded: int = -(-self.threads // WARP) * WARP
        self.dynamic: int = smem
        # A kernel without dynamic shared memory ends with its last variable, not at the next multiple of 16.
        self.shared_end: int = program.shared_size + smem if smem else program.shared_used
        self.stride = -(-self.shared_end // 128) * 128  # bytes of shared memory from one thread block to the next
        self.shared = np.zeros(len(numbers) * self.stride, np.uint8)
        self.shared_views: dict[int, Array] = {}
        self.barriers: dict[tuple[int, int], Barrier] = {}
        self.mbarriers: dict[tuple[int, int], MBarrier] = {}
        self.cluster_barriers: dict[int, ClusterBarrier] = {}
        self.groups: list[Group] = []
        self.remaining = np.full(len(numbers), self.threads)  # threads that have not exited, by block
        self.observe: Observer | None = None
        self.watch: Watch | None = None
        self.shuffle: np.random.Generator | None = None  # the order of atomics at one address; lane order without
        self.counter: Counter | None = None
        self.executed: dict[int, int] = {}  # block of instructions -> times run
        self.lanes_run: dict[int, int] = {}
        self.looped: dict[int, int] = {}  # branch back to an earlier instruction -> times that any lane took it
        self.progress = 0
        self.polled = 0  # loads that look for what other thread blocks write

    # ------------------------------------------------------------------ what groups ask
    def fresh_registers(self) -> list[Array]:
        return list(self.program.fresh)

    def shared_offsets(self, blocks: Array) -> Array:
        if (blocks == blocks[0]).all():
            return np.array([blocks[0] * self.stride], np.int64)
        return blocks.astype(np.int64) * self.stride

    def shared_view(self, width: int) -> Array:
        if width not in self.shared_views:
            self.shared_views[width] = self.shared.view(layout.WIDE[8 * width])
        return self.shared_views[width]

    def local_memory(self, g: Group) -> Array:
        if g.local is None:
            size = -(-max(self.program.local_size, 16) // 16) * 16
            g.local = np.zeros(g.lanes * size, np.uint8)
        return g.local

    @property
    def local_stride(self) -> int:
        return -(-max(self.program.local_size, 16) // 16) * 16

    def special(self, g: Group, name: str) -> Array:
        return special(self, g, name)

    # ------------------------------------------------------------------ errors
    def who(self, g: Group, lane: int) -> str:
        """A lane's thread, in words."""
        return self.words.thread(int(self.numbers[g.block[lane]]), int(g.thread[lane]))

    def block_name(self, block: int) -> str:
        """A thread block of the batch, in words."""
        return self.words.block(int(self.numbers[block]))

    def fault(
        self, ins: Instruction, kind: str, message: str, g: Group, lane: int, address: int | None = None, hint: str = ""
    ) -> KernelError:
        """The error for a lane at an instruction. message: a sentence with {who}, or what comes behind the thread."""
        who = self.who(g, lane)
        text = message.replace("{who}", who) if "{who}" in message else f"{who}: {message}"
        at = f"address {address:#x}, " if address is not None else ""
        return KernelError(
            f"kernel {self.program.name}, {self.words.line(ins.location)}: {text}", kind=kind, hint=hint,
            details=f"{at}`{ins.text}`",
        )  # fmt: skip

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
            go_on(g)
        for number in self.cluster_barriers:
            settle_cluster(self, number)

    def arrive(self, g: Group, ins: Instruction, number: int, count: int | None, pc: int, wait: bool) -> bool:
        """The lanes concerned come to barrier `number`, for `count` threads (None: all that have not exited).

        True when every lane may go straight on; else the lanes are parked until their barrier completes.
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
            return True
        for block, arrived in zip(present.tolist(), counts.tolist(), strict=True):
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
            if self.watch is not None:
                self.watch.arrived(g, ins, index[blocks == block], barrier)
            if wait:
                barrier.waiting.append(Waiting(g, index[blocks == block], pc))
                g.waiting += arrived
        for block in present.tolist():
            self.complete((block, number))
        return False

    def complete(self, key: tuple[int, int]) -> None:
        barrier = self.barriers[key]
        if barrier.arrived < (int(self.remaining[key[0]]) if barrier.count is None else barrier.count):
            return
        del self.barriers[key]
        if self.watch is not None:
            self.watch.completed(barrier, key[0])
        self.progress += 1
        for waiting in barrier.waiting:
            self.resume(waiting)

    def resume(self, waiting: Waiting) -> None:
        lanes = np.zeros(waiting.group.lanes, np.bool_)
        lanes[waiting.index] = True
        waiting.group.waiting -= len(waiting.index)
        waiting.group.queue(waiting.pc, lanes)

    # ------------------------------------------------------------------ running
    def run(self, order: Order) -> None:
        """Run all thread blocks to their end; under several groups a random one runs for a while."""
        self.groups = self._grouped(order.groups)
        chance = random.Random(order.seed)
        idle, before, polled = 0, self.progress, self.polled
        while True:
            runnable = [g for g in self.groups if g.fragments]
            if not runnable:
                if self.watch is not None and self.watch.work.later.stalled():
                    continue
                break
            g = chance.choice(runnable)
            self.advance(g, min(SLICE, self.limit + 1) if order.groups == "one" else chance.randint(1, QUANTUM))
            if g.fragments and g.turns.over(self.limit, len(self.numbers)):
                raise self._endless(g)
            if self.watch is not None:
                self.watch.work.later.between_turns()
            # Waiting in vain: turn after turn, somebody polls and nobody does anything else.
            idle = idle + 1 if self.progress == before and self.polled != polled else 0
            before, polled = self.progress, self.polled
            if idle > 2 * len(self.groups) and self.watch is not None and self.watch.work.later.stalled():
                continue
            if idle > STALLED + 20 * len(self.groups):
                raise self.hopeless(g, "deadlock", "the kernel polls memory that nobody changes any more")
        self.finish()

    def _grouped(self, how: str) -> list[Group]:
        """Lanes in groups. Warps are never parted; warpgroups of different ranks in a cluster are."""
        blocks = np.repeat(np.arange(len(self.numbers)), self.padded)
        threads = np.tile(np.arange(self.padded), len(self.numbers))
        if how == "one":
            return [Group(self, blocks, threads)]
        place = blocks if how == "apart" else blocks % self.shape.cluster
        key = place * -(-self.padded // WARPGROUP) + threads // WARPGROUP
        return [Group(self, blocks[key == k], threads[key == k], i) for i, k in enumerate(np.unique(key))]

    def advance(self, g: Group, quantum: int) -> None:
        """Run a group's lowest fragments until none is left, or for `quantum` blocks of instructions."""
        blocks, fragments = self.program.blocks, g.fragments
        left = quantum
        while fragments and left > 0:
            pc = min(fragments)
            lanes = fragments.pop(pc)
            limit = min(fragments, default=1 << 62)
            g.select(lanes)
            turns, before, charged = g.turns, g.turns.taken, g.turns.blocks_of(g)
            while True:
                block = blocks[pc]
                g.pc = pc
                if self.counter is not None:
                    self.counter.ran(g, pc)
                if self.watch is None:
                    for step in block.steps:
                        step(g)
                else:
                    self.watch.undefined.run(g, block)
                self.executed[block.start] = self.executed.get(block.start, 0) + 1
                self.lanes_run[block.start] = self.lanes_run.get(block.start, 0) + g.count
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

    def release(self) -> None:
        """Drop registers and shared memory. Group and batch know each other, so that they would stay until Python looks
        for such cycles: it counts objects, not bytes, and a large launch has a gigabyte of registers."""
        self.groups = []
        self.shared, self.shared_views = np.zeros(0, np.uint8), {}

    def finish(self) -> None:
        """Nobody can go on: all have exited, or somebody waits in vain."""
        if self.watch is not None:
            self.watch.work.later.finish()
        for g in self.groups:
            if g.meeting is not None:
                self._waits_in_vain(g, g.meeting)
        for (_, number), counted in self.barriers.items():
            if counted.waiting:
                waiting = counted.waiting[0]
                ins = self.program.instructions[waiting.pc - 1]
                name = f"barrier {number}" if number >= 0 else "the cluster's barrier"
                raise self.fault(
                    ins,
                    "barrier never completes",
                    f"{name} never completes: {counted.arrived} threads wait, the others have exited or wait elsewhere",
                    waiting.group,
                    int(waiting.index[0]),
                    hint="every thread of the thread block must come to the barrier",
                )

        phased: list[MBarrier | ClusterBarrier] = [*self.mbarriers.values(), *self.cluster_barriers.values()]
        for one in [waiting for barrier in phased for waiting in barrier.waiting]:
            ins = self.program.instructions[one.pc - 1]
            message = "threads wait for a phase that never completes: too few arrivals, or bytes that never come"
            raise self.fault(ins, "deadlock", message, one.group, int(one.index[0]))

    def _waits_in_vain(self, g: Group, meeting: Meeting) -> None:
        lane = meeting.waits()
        if lane is None:
            return
        other, mask = meeting.awaited(lane, g.live), int(meeting.masks[lane])
        message = f"lane {lane % WARP} waits for lane {other}, which its mask {mask:#x} names and which does not come"
        ins = self.program.instructions[int(meeting.resume[lane]) - 1]
        hint = "every lane that a mask names comes to a barrier of the warp, with the same mask"
        raise self.fault(ins, "member absent", message, g, lane, hint=hint)

    def _endless(self, g: Group) -> KernelError:
        pc, lane = g.turns.where(g)
        ins = self.program.instructions[min(pc, len(self.program.instructions) - 1)]
        message = f"still looping: a thread block has taken {self.limit:,} branches, and does not come to its end"
        hint = f"a kernel that takes more: limit= of core.sim.run, --branches of core check and core trace, {VARIABLE}"
        return self.fault(ins, "endless", message, g, lane, hint=hint)

    def hopeless(self, g: Group, kind: str, message: str) -> KernelError:
        lane = int(np.flatnonzero(g.live)[0])
        at = min(g.fragments, default=len(self.program.instructions))
        ins = self.program.instructions[min(at, len(self.program.instructions) - 1)]
        return self.fault(ins, kind, message, g, lane)
