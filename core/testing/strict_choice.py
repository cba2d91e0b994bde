"""Which launches of the op check run in strict mode: those with events that no strict launch of the kernel had.

An event is the condition in which a race, a read past an edge or a missed barrier shows: a block of instructions that
runs, in whole warps or in parts of one; the first turns of a loop; a second thread block along an axis; a size of
thread block; two arguments in one tensor; integers that repeat or are negative, since they are indices. Addresses
follow from these and from sizes. A launch of few instructions is strict for a pair of events that no strict launch had
together, since a race takes two accesses; a long one, of which strict mode takes seconds, for an event alone. Rows that
overlap, or a vector that reaches into the next row, depend on sizes alone: so a launch of few instructions is strict
for another alignment of an integer argument too.

Of several launches the one that shows the most for its time goes first, and those that show nothing more are left out.
Strict mode's first order has asynchronous work as late as it may be; a further one, by chance, is for launches with new
events of those by which an order can show, since it takes the same time again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.device.launch import LaunchRecord
from core.kernels.nvrtc import Kernel
from core.kernels.tensors import DeviceTensor
from core.sim.launching.launch_report import Report
from core.sim.launching.thread_order import SEEDS
from core.sim.ptx.program import Program, per_program
from core.testing.compare import Array

TURNS = 4  # of a loop that count as different: a pipeline of three stages uses the first again in the fourth
LONG = 1000  # instructions that each thread runs, from which a launch is long
ARRAY = 2000  # lanes for which the interpreter takes twice its time for few

ORDERING = ("turn", "axis", "threads", "same", "repeated")  # kinds of events by which an order may show
VECTOR = 8  # elements of the widest access, of 16 bytes

Event = tuple[object, ...]


@dataclass(frozen=True)
class Shown:
    """Observations of a launch. events: numbers of its kernel's events; aligned: of its arguments; orders: the events
    by which an order of threads or copies may show. cost: of strict mode, in instructions of few lanes."""

    kernel: Kernel
    events: Array
    aligned: frozenset[Event]
    orders: frozenset[Event]
    long: bool
    cost: float


@dataclass
class Ordered:
    """A kernel's launches in a further order, and their events of orders."""

    launches: int = 0
    events: set[Event] = field(default_factory=set)


@dataclass
class StrictChoice:
    """The events of the strict launches so far. together: kernel -> [event, event], had by one launch; aligned: kernels
    with the alignments of their arguments."""

    numbers: dict[Kernel, dict[Event, int]] = field(default_factory=dict)
    together: dict[Kernel, Array] = field(default_factory=dict)
    aligned: set[tuple[Kernel, Event]] = field(default_factory=set)
    ordered: dict[Kernel, Ordered] = field(default_factory=dict)

    def shown(self, record: LaunchRecord, report: Report, integers: Mapping[int, Array]) -> Shown:
        """Observations of a launch that has run. integers: contents of its integer tensors before it ran, by
        argument."""
        numbers = self.numbers.setdefault(record.kernel, {})
        events = list(events_of(record, report, integers))
        groups, _ = report.visits.get(0, (1, 0))
        atomics = blocks_with_atomics(report.program) if report.program is not None else ()
        return Shown(
            record.kernel,
            np.array([numbers.setdefault(e, len(numbers)) for e in events]),
            frozenset(() if is_long(report) else alignments(record)),
            frozenset(e for e in events if e[0] in ORDERING or e[1] in atomics),
            is_long(report),
            report.instructions / groups * (1 + groups * 32 / ARRAY),
        )

    def news(self, shown: Shown) -> int:
        """The number of events, pairs and alignments that no strict launch had."""
        had = self._had(shown.kernel)
        events = shown.events
        new = ~(had[events, events] if shown.long else had[np.ix_(events, events)])
        return int(new.sum()) + sum((shown.kernel, one) not in self.aligned for one in shown.aligned)

    def have(self, shown: Shown) -> None:
        """A launch is strict: its events count as had."""
        self._had(shown.kernel)[np.ix_(shown.events, shown.events)] = True
        self.aligned |= {(shown.kernel, one) for one in shown.aligned}

    def is_new(self, shown: Shown) -> bool:
        """Whether a launch that has run is to run in strict mode too; if so, its events count as had."""
        new = self.news(shown) > 0
        if new:
            self.have(shown)
        return new

    def chosen(self, many: Sequence[Shown]) -> Iterator[int]:
        """Places of those that are to run in strict mode, the one with the most news for its cost first."""
        waiting = [(-self.news(shown) / max(shown.cost, 1.0), place) for place, shown in enumerate(many)]
        heapq.heapify(waiting)
        while waiting:
            worth, place = heapq.heappop(waiting)
            present = -self.news(many[place]) / max(many[place].cost, 1.0)  # news become fewer, never more
            if present > worth and waiting and present > waiting[0][0]:
                heapq.heappush(waiting, (present, place))
            elif present < 0:
                self.have(many[place])
                yield place

    def seeds(self, shown: Shown) -> tuple[int, ...]:
        """The seed of a further order for a strict launch, each in turn: for a kernel's first launch, and for those
        with an event of orders (`Shown.orders`) that no launch in a further order had, which then counts as had."""
        had = self.ordered.setdefault(shown.kernel, Ordered())
        if had.launches and shown.orders <= had.events:
            return ()
        had.events |= shown.orders
        had.launches += 1
        return (SEEDS[(had.launches - 1) % len(SEEDS)],)

    def _had(self, kernel: Kernel) -> Array:
        had, count = self.together.get(kernel, np.zeros((0, 0), np.bool_)), len(self.numbers[kernel])
        if len(had) < count:
            had = self.together[kernel] = np.pad(had, (0, 2 * count - len(had)))
        return had


@per_program
def blocks_with_atomics(program: Program) -> frozenset[int]:
    """The blocks of instructions with an atomic, by their first instruction."""
    code = program.instructions
    return frozenset(
        block.start
        for block in program.blocks.values()
        if any(ins.names[0] in ("atom", "red") for ins in code[block.start : block.stop])
    )


def is_long(report: Report) -> bool:
    """Whether strict mode would take long: it costs by instruction, however many threads run it together."""
    groups, _ = report.visits.get(0, (1, 0))
    return report.instructions > LONG * groups


def alignments(record: LaunchRecord) -> list[Event]:
    """The largest power of two, at most VECTOR, that divides each integer argument."""
    numbers = ((i, int(a)) for i, a in enumerate(record.args) if isinstance(a, np.integer))
    return [("aligned", i, min(n & -n, VECTOR)) for i, n in numbers if n > 1]


def events_of(record: LaunchRecord, report: Report, integers: Mapping[int, Array]) -> Iterator[Event]:
    """The events of a launch."""
    groups, lanes = report.visits.get(0, (1, 1))
    for start, (ran, on) in report.visits.items():
        yield "block", start
        yield "whole" if on * groups == ran * lanes else "part", start
    for branch, turns in report.looped.items():
        for turn in range(1, min(turns, TURNS) + 1):
            yield "turn", branch, turn
    yield from (("axis", axis) for axis, size in enumerate(report.grid) if size > 1)
    yield "threads", report.block, record.cluster, record.smem > 0
    pointers = [a.pointer if isinstance(a, DeviceTensor) else -1 - i for i, a in enumerate(record.args)]
    yield from (("same", i, pointers.index(p)) for i, p in enumerate(pointers) if pointers.index(p) < i)
    for number, values in integers.items():
        if len(np.unique(values)) < values.size:
            yield "repeated", number
        if values.dtype.kind == "i" and (values < 0).any():
            yield "negative", number
