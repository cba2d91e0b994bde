"""Which launches of the op check run in strict mode: those with events that no strict launch of the kernel had.

An event is what a race, a read past an edge or a missed barrier needs in order to show: a block of instructions that
runs, in whole warps or in parts of one; the first turns of a loop; a second thread block along an axis; a size of
thread block; two arguments in one tensor; integers that repeat or are negative, since they are indices. Addresses
follow from these and from sizes. A launch of few instructions is strict for a pair of events that no strict launch had
together, since a race takes two accesses; a long one, of which strict mode takes seconds, for an event alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from core.device.launch import LaunchRecord
from core.kernels.nvrtc import Kernel
from core.kernels.tensors import DeviceTensor
from core.sim.launching.launch_report import Report
from core.testing.compare import Array

TURNS = 4  # of a loop that count as different: a pipeline of three stages uses the first again in the fourth
LONG = 1000  # instructions that each thread runs, from which a launch is long

Event = tuple[object, ...]


@dataclass
class StrictChoice:
    """The events of the strict launches so far. together: kernel -> [event, event], had by one launch."""

    numbers: dict[Kernel, dict[Event, int]] = field(default_factory=dict)
    together: dict[Kernel, Array] = field(default_factory=dict)

    def is_new(self, record: LaunchRecord, report: Report, integers: Mapping[int, Array]) -> bool:
        """Whether a launch that has run is to run in strict mode too; if so, its events count as had.

        integers: contents of its integer tensors before it ran, by argument.
        """
        numbers = self.numbers.setdefault(record.kernel, {})
        events = np.array([numbers.setdefault(e, len(numbers)) for e in events_of(record, report, integers)])
        had = self.together.get(record.kernel, np.zeros((0, 0), np.bool_))
        if len(had) < len(numbers):
            had = np.pad(had, (0, 2 * len(numbers) - len(had)))
            self.together[record.kernel] = had
        pairs = np.ix_(events, events)
        new = not (had[events, events] if is_long(report) else had[pairs]).all()
        if new:
            had[pairs] = True
        return bool(new)


def is_long(report: Report) -> bool:
    """Whether strict mode would take long: it costs by instruction, however many threads run it together."""
    groups, _ = report.visits.get(0, (1, 0))
    return report.instructions > LONG * groups


def events_of(record: LaunchRecord, report: Report, integers: Mapping[int, Array]) -> Iterator[Event]:
    """What happened in a launch."""
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
