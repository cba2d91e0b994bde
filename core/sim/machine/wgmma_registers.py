"""Strict mode's registers of wgmma: those in use, and the accesses that a wgmma.fence must still order.

PTX ISA, wgmma.fence: it is needed before the first wgmma of a kernel, and between an access to a register by its thread
(a read too, as an epilogue's) and a wgmma that uses it, as accumulator or as A. Only accumulators that wgmma of one
shape hand on to each other need none.

Values are followed, not registers: compilers rename with moves, which vanish when registers are assigned. A copy is the
value that it copies, and is neither a read nor a write of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

OPEN = -1  # a wgmma that no commit has put into a group yet


@dataclass
class Registers:
    """wgmma's registers of a group of threads: those in use by groups not waited for, and those not fenced."""

    busy: dict[int, int] = field(default_factory=dict)  # accumulators: register -> commit group, OPEN before commit
    sources: dict[int, int] = field(default_factory=dict)  # A's registers, which may be read but not written
    commits: int = 0
    fenced: bool = False  # there was a wgmma.fence
    values: dict[int, int] = field(default_factory=dict)  # register -> the value in it
    touched: set[int] = field(default_factory=set)  # values that were accessed since the last fence
    shapes: dict[int, str] = field(default_factory=dict)  # accumulators: value -> the shape of its wgmma since then
    fresh: itertools.count[int] = field(default_factory=itertools.count)

    def commit(self) -> None:
        for table in (self.busy, self.sources):
            for register, number in table.items():
                table[register] = self.commits if number == OPEN else number
        self.commits += 1

    def wait(self, keep: int) -> None:
        for table in (self.busy, self.sources):
            for register in [r for r, n in table.items() if n != OPEN and n < self.commits - keep]:
                del table[register]

    def fence(self) -> None:
        self.fenced = True
        self.touched.clear()
        self.shapes.clear()

    def value(self, register: int) -> int:
        if register not in self.values:
            self.values[register] = next(self.fresh)
        return self.values[register]

    def access(self, read: Iterable[int], written: Iterable[int]) -> None:
        self.touched |= {self.value(register) for register in read}
        for register in written:
            self.values[register] = next(self.fresh)
            self.touched.add(self.values[register])

    def unfenced(self, accumulators: set[int], sources: set[int], shape: str) -> str:
        """The registers for which a wgmma lacks a fence, as text; "" for none."""
        if not self.fenced:
            return "the first wgmma of a kernel comes before any wgmma.fence"
        if not self.touched.isdisjoint(self.value(r) for r in accumulators | sources):
            return "a wgmma uses registers that were read or written since the last wgmma.fence"
        summed = {self.shapes.get(self.value(r)) for r in accumulators} - {None, shape}
        if summed or any(self.value(r) in self.shapes for r in sources):
            return "a wgmma uses accumulators of one of another shape, or as its A, with no wgmma.fence between"
        self.shapes |= {self.value(r): shape for r in accumulators}
        return ""
