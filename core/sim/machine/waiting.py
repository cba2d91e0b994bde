"""Barriers of a thread block, of a cluster, and mbarriers, each with the threads that wait at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.sim.machine.lanes import Lanes
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction


@dataclass(frozen=True)
class Reduction:
    """A reduction over a thread block at a barrier. form: popc, and, or; yes: the predicate of every lane of the group;
    write: (group, results) -> None, into the lanes concerned."""

    form: str
    yes: Array
    write: Callable[[Any, Array], None]

    def result(self, votes: Array, arrived: Array) -> Array:
        """By thread block: of the votes of those that arrived."""
        if self.form == "popc":
            return votes.astype(np.uint32)
        return np.asarray(votes == arrived if self.form == "and" else votes > 0)


@dataclass
class Waiting:
    """Lanes of a group that wait, where they go on, and the reduction whose result they get."""

    group: Lanes
    index: Array
    pc: int
    reduction: Reduction | None = None

    def reduced(self, votes: int, arrived: int) -> None:
        """Write the result of the reduction, if there is one."""
        if self.reduction is None:
            return
        g, before, chosen = self.group, self.group.state(), np.zeros(self.group.lanes, np.bool_)
        chosen[self.index] = True
        g.select(chosen)
        result = self.reduction.result(np.array([votes]), np.array([arrived]))
        self.reduction.write(g, g.spread_back(np.repeat(result, len(self.index))))
        g.restore(before)


@dataclass
class Barrier:
    """One barrier of one thread block. votes: of a reduction, the threads whose predicate holds."""

    arrived: int = 0
    votes: int = 0
    count: int | None = None  # threads, where the instruction names them
    known: Array | None = None  # strict mode: the clock of those who came
    came: list[tuple[Instruction, Array]] = field(default_factory=list)  # strict mode: who, at which instruction
    waiting: list[Waiting] = field(default_factory=list)
    whole: bool = True  # it is of all threads of the thread block


@dataclass
class Phase:
    """Strict mode's record of a barrier with phases: the clocks of arrived threads, before and in this phase."""

    gathering: Array | None = None
    known: Array | None = None
    maker: tuple[int, int] | None = None  # the warp that initialised it, and when

    def turn(self) -> None:
        """The phase is complete."""
        if self.gathering is not None:
            self.known = self.gathering if self.known is None else np.maximum(self.known, self.gathering)
            self.gathering = None

    def gather(self, latest: Array) -> None:
        self.gathering = latest if self.gathering is None else np.maximum(self.gathering, latest)


@dataclass(eq=False)
class MBarrier:
    """`expected` arrivals complete a phase once the bytes of its copies (`bytes_left`) have landed too."""

    expected: int
    pending: int
    phase: int = 0
    bytes_left: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    order: Phase = field(default_factory=Phase)


@dataclass
class ClusterBarrier:
    """The barrier of a cluster: arrivals, phase, and the threads that wait."""

    arrived: int = 0
    phase: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    order: Phase = field(default_factory=Phase)
