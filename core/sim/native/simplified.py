"""Optimizes a kernel's records: move coalescing, copy propagation, dead-code elimination, invariant code motion.

Compilers write PTX with a move into a fresh register for each operand, and with index arithmetic that gives the same
result in every thread block. Four passes, each of which keeps the bits:

1. Move coalescing: a result whose only reader is a move is written to the move's target.
2. Copy propagation: readers of a copy read its source. Both registers are written only once, so that a thread that has
   the copy has the source too.
3. Dead-code elimination: lanewise records whose results no record reads are removed.
4. Invariant code motion: records that depend only on constants, parameters and the thread's index in its block move
   into the *prologue*. It runs once for each warp of a worker; its registers keep their values for all thread blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from core.sim.native.allocation import Flow, OpRecord


@dataclass(frozen=True)
class Rows:
    """Row numbers of the machine. lanewise: rows that compute each lane separately; moves: rows that copy a register;
    prepared: the row that ends a prologue."""

    lanewise: frozenset[int]
    moves: frozenset[int]
    prepared: int


@dataclass
class Simplified:
    """Optimized records. read_later: the prologue's registers that later records read."""

    records: list[OpRecord]
    starts: list[int]
    read_later: list[int]


def simplify(
    records: Sequence[OpRecord], starts: Sequence[int], rows: Rows, defined: Collection[int], varying: Collection[int]
) -> Simplified:
    """Run the four passes. defined: registers that hold constants and special registers; varying: those of them that
    differ between thread blocks."""
    draft = _Draft(list(records), list(starts), rows)
    draft.direct(defined)
    draft.copies(defined)
    draft.unread()
    return draft.prologue(set(defined) - set(varying))


class _Draft:
    def __init__(self, records: list[OpRecord], starts: list[int], rows: Rows) -> None:
        self.records, self.starts, self.rows = records, starts, rows
        self._count()

    def _count(self) -> None:
        self.reads = Counter(r for record in self.records for r in record.reads)
        self.writes = Counter(r for record in self.records for r in record.writes)
        self.cuts = {self.starts[to] for record in self.records for to in (record.target, *record.targets) if to >= 0}
        self.guarded: set[int] = set()
        for place, record in enumerate(self.records):
            if record.guards:
                self.guarded |= set(range(place + 1, place + 1 + record.imm))

    def _free(self, place: int) -> bool:
        """Whether a record always writes its results in full."""
        return place not in self.guarded and self.records[place].kills

    def _without(self, gone: Collection[int]) -> None:
        """Remove records, and let labels follow."""
        if not gone:
            return
        moved, remaining = [], list[OpRecord]()
        for place, record in enumerate(self.records):
            moved.append(len(remaining))
            if place not in gone:
                remaining.append(record)
        moved.append(len(remaining))
        self.starts = [moved[place] for place in self.starts]
        self.records = remaining
        self._count()

    def _is_move(self, place: int) -> bool:
        return self.records[place].row in self.rows.moves and self._free(place)

    def direct(self, defined: Collection[int]) -> None:
        gone = set[int]()
        for place in range(1, len(self.records)):
            if not self._is_move(place) or place in self.cuts or not self._free(place - 1) or place - 1 in gone:
                continue
            before, (target, source) = self.records[place - 1], self.records[place].slots[:2]
            once = self.writes[source] == self.reads[source] == 1 and source not in defined
            if once and source in before.writes and target not in before.writes and source not in before.reads:
                self.records[place - 1] = _renamed(before, {source: target})
                gone.add(place)
        self._without(gone)

    def copies(self, defined: Collection[int]) -> None:
        alive = Flow(self.records, self.starts).alive

        def settled(r: int) -> bool:
            """Whether a register is written once, in full, before it is read."""
            return self.writes[r] == 1 and r not in alive

        names, gone = dict[int, int](), set[int]()
        for place, record in enumerate(self.records):
            if not self._is_move(place):
                continue
            target, source = record.slots[:2]
            if settled(target) and (source in defined or settled(source)):
                names[target] = source
                gone.add(place)
        for target in names:
            while names[target] in names:
                names[target] = names[names[target]]
        self.records = [_renamed(record, names) for record in self.records]
        self._without(gone)

    def unread(self) -> None:
        gone = set[int]()
        for place in range(len(self.records) - 1, -1, -1):
            record = self.records[place]
            if record.row in self.rows.lanewise and place not in self.guarded and not any(
                self.reads[r] for r in record.writes
            ):  # fmt: skip
                gone.add(place)
                self.reads.subtract(record.reads)
        self._without(gone)

    def prologue(self, fixed: set[int]) -> Simplified:
        """Move invariant records to the front. fixed: registers with one value in all thread blocks; the prologue's
        results are added."""
        alive = Flow(self.records, self.starts).alive
        first = list[OpRecord]()
        gone = set[int]()
        for place, record in enumerate(self.records):
            settled = all(self.writes[r] == 1 and r not in alive for r in record.writes)
            if record.row in self.rows.lanewise and self._free(place) and settled and fixed.issuperset(record.reads):
                first.append(record)
                gone.add(place)
                fixed |= set(record.writes)
        if not first:
            return Simplified(self.records, self.starts, [])
        self._without(gone)
        results = dict.fromkeys(r for record in first for r in record.writes)
        first.append(OpRecord(self.rows.prepared, [-1] * 4, 0, ends=True))
        entry = len(first)
        read_later = [r for r in results if self.reads[r]]
        return Simplified([*first, *self.records], [place + entry for place in self.starts], read_later)


def _renamed(record: OpRecord, names: dict[int, int]) -> OpRecord:
    """The record with other registers."""
    if names.keys().isdisjoint(record.reads) and names.keys().isdisjoint(record.writes):
        return record

    def new(registers: Sequence[int]) -> list[int]:
        return [names.get(r, r) for r in registers]

    slots = [r if place in record.plain else names.get(r, r) for place, r in enumerate(record.slots)]
    return replace(
        record, slots=slots, more=None if record.more is None else new(record.more), listed=new(record.listed),
        reads=new(record.reads), writes=new(record.writes),
    )  # fmt: skip
