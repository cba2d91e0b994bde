"""Lanes: threads that run in lockstep, their registers, and the active ones at an instruction.

In fast mode a group is many thread blocks at once, since NumPy's cost is per call and not per element; under
the fair scheduler it is one warpgroup. A register is an array over the group's lanes, or of one element where
all lanes hold the same value: loop counters and arguments then cost nothing.

Divergence: `fragments` maps a program counter to the lanes that wait there; the lowest counter runs first, and
fragments that meet are joined. For an instruction, the lanes concerned are kept in three ways:
  all      neither `picked` nor `mask`: every live lane; results replace the register
  dense    `mask`: most lanes; computed for all, kept where the mask holds
  sparse   `picked`: few lanes; operands are gathered, results scattered
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.sim.faults import KernelError
from core.sim.machine.inflight import Queue
from core.sim.machine.wgmma_registers import Registers
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction

DENSE = 0.4  # share of the lanes from which computing for all is cheaper than gathering


@dataclass(frozen=True)
class Origin:
    """The origin of an undefined value. fault: (lane, text appended to the sentence) -> the error."""

    ins: Instruction
    fault: Callable[[int, str], KernelError]


@dataclass
class Mark:
    """The lanes in which a register is undefined."""

    lanes: Array
    origin: Origin


class Lanes:
    """The state of one group of lanes."""

    def __init__(
        self, blocks: Array, threads: Array, live: Array, registers: list[Array], shared_offset: Array, number: int = 0
    ) -> None:
        """blocks, threads: of every lane, its thread block's place in the batch and its thread in the block.

        live: bools; a lane whose thread is beyond the block's size only fills its warp and never runs. registers: one
        array each. shared_offset: where each lane's shared memory begins in the batch's, or one place for all.
        """
        self.number = number
        self.lanes = len(threads)
        self.block: Array = blocks
        self.thread: Array = threads
        self.live = live
        self.live_count = int(self.live.sum())
        self.registers: list[Array] = registers
        self.owned: set[int] = set()
        self.doubles: dict[int, tuple[Array, Array]] = {}  # register -> (its array, the same as f64)
        self.places: dict[int, tuple[Array, Array, Array]] = {}  # where instructions last went in shared memory
        self.fragments: dict[int, Array | None] = {0: None if self.live.all() else self.live.copy()}
        self.picked: Array | None = None
        self.mask: Array | None = None
        self.index: Array | None = None
        self.count = 0
        self.shared_offset = shared_offset
        self.local: Array | None = None
        self.special: dict[str, Array] = {}
        self.cluster_phase: Array | None = None  # of the cluster barrier at which each lane last arrived
        self.queues: dict[str, Queue] = {}  # strict mode: asynchronous work under way
        self.wgmma = Registers()
        self.waiting = 0  # lanes that wait in barriers
        self.polled: dict[int, Array] = {}  # places where instructions last polled writes of others
        self.undefined: dict[int, Mark] = {}  # strict mode: registers that hold undefined values
        self.pc = 0

    def work_of(self, name: str) -> Queue:
        """A queue: "copy" (cp.async), "bulk" (sources of bulk stores), "store" (their targets) or "wgmma"."""
        if name not in self.queues:
            self.queues[name] = Queue(np.zeros(self.lanes, np.int64))
        return self.queues[name]

    # ------------------------------------------------------------------ which lanes
    def select(self, lanes: Array | None) -> None:
        """Make the lanes of a bool mask (None: all) those that the next instructions concern."""
        if lanes is None:
            self.picked = self.mask = self.index = None
            self.count = self.lanes
            return
        self.index = np.flatnonzero(lanes)
        self.count = len(self.index)
        self.picked = self.mask = None
        if self.count == self.lanes:
            self.index = None  # as before they parted
        elif self.count == self.live_count:
            pass  # results of the others are never read
        elif self.count >= DENSE * self.lanes:
            self.mask = lanes
        else:
            self.picked = self.index

    def state(self) -> tuple[Any, ...]:
        return self.picked, self.mask, self.index, self.count

    def restore(self, state: tuple[Any, ...]) -> None:
        self.picked, self.mask, self.index, self.count = state

    def active(self) -> Array:
        """The lanes concerned, as a bool mask."""
        if self.index is None:
            return np.ones(self.lanes, np.bool_)
        lanes = np.zeros(self.lanes, np.bool_)
        lanes[self.index] = True
        return lanes

    def indices(self) -> Array:
        """The lanes concerned, as positions."""
        return np.arange(self.lanes) if self.index is None else self.index

    def concerned(self, value: Array) -> Array:
        """The elements of a reader's value for the lanes concerned, or the one that they share."""
        if self.index is None or self.picked is not None or value.size == 1:
            return value
        return value[self.index]

    def spread(self, value: Array) -> Array:
        """One element per lane concerned."""
        value = self.concerned(value)
        return np.broadcast_to(value, (self.count,)) if value.size != self.count else value

    def spread_back(self, value: Array) -> Array:
        """The way back: values of the lanes concerned, in the form that a writer takes."""
        if self.index is None or self.picked is not None or value.size == 1:
            return value
        full = np.zeros(self.lanes, value.dtype)
        full[self.index] = value
        return full

    # ------------------------------------------------------------------ registers
    def merge(self, register: int, value: Array) -> None:
        """Write a register under a partial selection."""
        old = self.registers[register]
        if self.mask is not None:
            self.registers[register] = np.where(self.mask, value, old)
            self.owned.discard(register)
            return
        if register not in self.owned or old.size != self.lanes:
            old = np.full(self.lanes, old[0]) if old.size != self.lanes else old.copy()
            self.registers[register] = old
            self.owned.add(register)
        old[self.picked] = value
        self.doubles.pop(register, None)

    def whole(self, register: int) -> Array:
        """A register over all lanes, selected or not."""
        value = self.registers[register]
        return np.broadcast_to(value, (self.lanes,)) if value.size != self.lanes else value

    # ------------------------------------------------------------------ fragments
    def queue(self, pc: int, lanes: Array | None) -> None:
        """Let lanes go on at `pc`, together with those that are there."""
        if pc in self.fragments and lanes is not None:
            there = self.fragments[pc]
            self.fragments[pc] = None if there is None else there | lanes
        else:
            self.fragments[pc] = lanes

    def leave(self, lanes: Array) -> None:
        """Lanes exit."""
        self.live = self.live & ~lanes
        self.live_count = int(self.live.sum())
