"""Strict mode's asynchronous work: its time, the copies in flight, and the accesses that are legal until it lands.

A copy or a wgmma is checked when it is issued, and happens later: as late as it legally may, or, in the runs that
follow, at random times before that. Until the program has waited for it as PTX requires, its memory and registers
(wgmma_registers.py) count as busy: on a chip, an access to them would now and then see old or half-written data. In
fast mode the work happens when it is issued.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from core.sim.ptx.register_types import Array

OPEN = -1  # work that no commit has put into a group yet
Move = Callable[[Array], None]  # does an instruction's work for some of its rows


@dataclass(eq=False)
class Work:
    """Work of one instruction: `lanes` issued it; `places` of memory, one row a lane, are busy with it."""

    kind: str  # fill: a copy into shared memory; drain: an asynchronous read of it; write: one of global memory
    lanes: Array
    places: Array
    move: Move
    number: Array = field(init=False)  # of the commit group, per lane
    rows: Array = field(init=False)  # which of the instruction's rows these are
    moved: Array = field(init=False)  # by row, whether it has happened
    arrived: Array = field(init=False)  # by lane, the time of the first arrival at an mbarrier that is for it; 0: none

    def __post_init__(self) -> None:
        self.number = np.full(len(self.lanes), OPEN)
        self.rows = np.arange(len(self.lanes))
        self.moved = np.zeros(len(self.lanes), np.bool_)
        self.arrived = np.zeros(len(self.lanes), np.int32)

    def happen(self, rows: Array | None = None) -> None:
        """Do the work of these rows (all by default) that has not happened so far."""
        rows = np.flatnonzero(~self.moved) if rows is None else rows[~self.moved[rows]]
        if rows.size:
            self.moved[rows] = True
            self.move(rows)


class Later:
    """Work that has been issued and has not happened. seed 0: as late as it may; else at random times.

    Of two runs with seeds that follow each other, one does at once the work that the other delays, if both issue the
    same work: so that a copy that is only inspected between two lines meets both.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed) if seed else None
        self.coin, self.side = random.Random(0), seed % 2
        self.pending: list[Work] = []  # work that a wait_group waits for, and work without a wait
        self.landings: list[Callable[[], None]] = []  # copies that an mbarrier counts, and arrivals after copies

    def issued(self, work: Work) -> None:
        if self._at_once():
            work.happen()
        else:
            self.pending.append(work)

    def lands(self, land: Callable[[], None]) -> None:
        if self._at_once():
            land()
        else:
            self.landings.append(land)

    def _at_once(self) -> bool:
        return self.chance is not None and self.coin.getrandbits(1) == self.side

    def between_turns(self) -> None:
        """Time passes: with luck, something happens."""
        if self.chance and (self.pending or self.landings) and self.chance.random() < 0.5:
            which = self.chance.randrange(len(self.pending) + len(self.landings))
            if which < len(self.landings):
                self.landings.pop(which)()
            else:
                self.pending.pop(which - len(self.landings)).happen()

    def stalled(self) -> bool:
        """Complete one copy when no group can run. False when no copy is pending."""
        if not self.landings:
            return False
        self.landings.pop(self.chance.randrange(len(self.landings)) if self.chance else 0)()
        return True

    def finish(self) -> None:
        """At the kernel's end, complete the work that no thread waited for."""
        if self.chance:
            self.chance.shuffle(self.pending)
        for work in self.pending:
            work.happen()
        self.pending = []


@dataclass
class Queue:
    """One lane's groups of asynchronous work, kept for all lanes of a group of threads together."""

    commits: Array  # how many groups each lane has committed
    work: list[Work] = field(default_factory=list)

    def commit(self, lanes: Array) -> None:
        here = np.zeros(len(self.commits), np.bool_)
        here[lanes] = True
        for one in self.work:
            now = here[one.lanes] & (one.number == OPEN)
            one.number[now] = self.commits[one.lanes[now]]
        self.commits[lanes] += 1

    def wait(self, lanes: Array, keep: int, also_open: bool) -> list[tuple[Work, Array]]:
        """(work, which of its lanes are done) when `lanes` wait until at most `keep` groups are left."""
        here = np.zeros(len(self.commits), np.bool_)
        here[lanes] = True
        finished = []
        for one in self.work:
            old = (one.number != OPEN) & (one.number < self.commits[one.lanes] - keep)
            done = here[one.lanes] & (old | (also_open & (one.number == OPEN)))
            if done.any():
                finished.append((one, done))
        return finished

    def finish(self, work: Work, done: Array) -> None:
        keep = ~done
        work.lanes, work.places = work.lanes[keep], work.places[keep]
        work.number, work.rows, work.arrived = work.number[keep], work.rows[keep], work.arrived[keep]
        if not len(work.lanes):
            self.work.remove(work)
