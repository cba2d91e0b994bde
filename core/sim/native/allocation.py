"""Registers of PTX -> places in a warp's register file.

PTX names a new register for nearly each result, thousands in a large kernel. Few are alive at once, and those fit a
core's cache: a linear scan over live intervals gives them places (Poletto and Sarkar, "Linear Scan Register
Allocation", 1999). A register that may be read before it is written is alive from the start, and zeroed there.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

NARROW, WIDE = 128, 256  # bytes of 32 lanes
HEAD = 64  # bytes before them, of a register that may hold a line (lines.h)


@dataclass
class OpRecord:
    """One instruction of the machine. Registers are numbered; -1 where a slot has none.

    slots: o[0..3]; more: two halves of the immediate, as registers. plain: slots that hold numbers, not registers.
    listed: registers of a list, whose place goes into slot `list_slot`; head: numbers before them. target, targets:
    instructions of the kernel.
    kills: whether each thread here writes its results in full. ends: nothing follows.
    guards: the next `imm` records run under its predicate.
    """

    row: int
    slots: list[int]
    pc: int
    imm: int = 0
    more: list[int] | None = None
    plain: frozenset[int] = frozenset()
    listed: list[int] = field(default_factory=list)
    head: list[int] = field(default_factory=list)
    list_slot: int = -1
    reads: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    target: int = -1
    targets: tuple[int, ...] = ()
    kills: bool = True
    ends: bool = False
    guards: bool = False


@dataclass
class Places:
    """register -> byte offset; those that are alive at the start; bytes of the file."""

    at: dict[int, int]
    fresh: list[int]
    size: int


def allocate(
    records: Sequence[OpRecord], starts: Sequence[int], entry: int, wide: Sequence[bool], pinned: Sequence[int],
    lines: Collection[int] = (),
) -> Places:  # fmt: skip
    """starts: instruction -> its first record. entry: the record at which threads begin. wide: by register, whether it
    has 64 bits. pinned: registers that keep a place of their own (constants and their like). lines: those with a head,
    in addition to the pinned ones."""
    flow = Flow(records, starts, entry)
    spans = _intervals(records, flow, frozenset(pinned))
    alive = flow.alive - set(pinned)
    at: dict[int, int] = {}
    size = 0
    for register in sorted(pinned, key=lambda r: not wide[r]):
        at[register], size = size + HEAD, size + HEAD + (WIDE if wide[register] else NARROW)
    kinds = ((True, HEAD), (False, HEAD), (True, 0), (False, 0))
    for is_wide, head in kinds:
        free: list[int] = []
        busy: list[tuple[int, int]] = []  # (end, place)
        here = [r for r in spans if wide[r] == is_wide and (r in lines) == (head > 0)]
        for start, end, register in sorted((*spans[r], r) for r in here):
            while busy and busy[0][0] < start:
                heapq.heappush(free, heapq.heappop(busy)[1])
            if not free:
                heapq.heappush(free, size + head)
                size += head + (WIDE if is_wide else NARROW)
            at[register] = heapq.heappop(free)
            heapq.heappush(busy, (end, at[register]))
    return Places(at, sorted(alive), max(size, WIDE))


class Flow:
    """Live registers by block. blocks: (first record, one past the last, first records of those that may come
    next); entering, leaving: by block, bit r for register r; alive: registers that may be read before they are written
    by a thread that begins at record `entry`."""

    def __init__(self, records: Sequence[OpRecord], starts: Sequence[int], entry: int = 0) -> None:
        self.blocks = _blocks(records, starts, entry)
        begins = {first: number for number, (first, _, _) in enumerate(self.blocks)}
        uses, kills = [], []
        for first, stop, _ in self.blocks:
            used = killed = 0
            for record in records[first:stop]:
                for r in record.reads:
                    used |= (1 << r) & ~killed
                if record.kills:
                    for r in record.writes:
                        killed |= 1 << r
            uses.append(used)
            kills.append(killed)
        self.entering, self.leaving = list(uses), [0] * len(self.blocks)
        changed = True
        while changed:
            changed = False
            for number in range(len(self.blocks) - 1, -1, -1):
                out = 0
                for to in self.blocks[number][2]:
                    out |= self.entering[begins[to]]
                self.leaving[number] = out
                new = uses[number] | (out & ~kills[number])
                if new != self.entering[number]:
                    self.entering[number] = new
                    changed = True
        self.alive = set(_members(self.entering[begins[entry]])) if records else set()


def _intervals(records: Sequence[OpRecord], flow: Flow, pinned: frozenset[int]) -> dict[int, tuple[int, int]]:
    """register -> first and last record at which it is alive."""
    starts, ends = _reached(records, flow, pinned, 1), _reached(records, flow, pinned, -1)
    return {r: (start, ends[r]) for r, start in starts.items()}


def _reached(records: Sequence[OpRecord], flow: Flow, pinned: frozenset[int], way: int) -> dict[int, int]:
    """register -> the record at which it is first alive, of all records forwards (way 1) or backwards (-1)."""
    at: dict[int, int] = {}
    done = sum(1 << r for r in pinned)
    live = list(zip(flow.blocks, flow.entering, flow.leaving, strict=True))[::way]
    for (first, stop, _), entering, leaving in live:
        before, after = ((first, entering), (stop - 1, leaving))[::way]
        at |= dict.fromkeys(_members(before[1] & ~done), before[0])
        done |= before[1]
        for place in range(first, stop)[::way]:
            for r in (*records[place].reads, *records[place].writes):
                if r not in at and r not in pinned:
                    at[r] = place
                    done |= 1 << r
        at |= dict.fromkeys(_members(after[1] & ~done), after[0])
        done |= after[1]
    return at


def _blocks(records: Sequence[OpRecord], starts: Sequence[int], entry: int) -> list[tuple[int, int, tuple[int, ...]]]:
    cuts = {0, entry, len(records)}
    for place, record in enumerate(records):
        if record.ends or record.target >= 0 or record.targets:
            cuts.add(place + 1)
        cuts |= {starts[to] for to in (record.target, *record.targets) if to >= 0}
    ordered = sorted(cuts)
    blocks = []
    for first, stop in zip(ordered, ordered[1:], strict=False):
        last = records[stop - 1]
        to = [starts[one] for one in (last.target, *last.targets) if one >= 0]
        if not last.ends and stop < len(records):
            to.append(stop)
        blocks.append((first, stop, tuple(to)))
    return blocks


def _members(bits: int) -> list[int]:
    """The positions of the bits that are set."""
    members = []
    text = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    for place, octet in enumerate(text):
        while octet:
            low = octet & -octet
            members.append(8 * place + low.bit_length() - 1)
            octet ^= low
    return members
