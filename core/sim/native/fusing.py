"""Fuses runs of fma, the inner loop of a matrix product, into fewer records.

First chains form: an fma whose sum only a later fma of its block reads moves to that one's place, up to four of them.
Then chains that follow each other and share their factors on one side become one record (fused.c). A factor or addend
that is written in between keeps an fma in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.sim.native.allocation import OpRecord

LONGEST = 4  # fma of a chain
MOST = 8  # chains of a record


@dataclass
class Chain:
    """sum = addend + the products of `factors`. at: where each register was read."""

    sum: int
    addend: int
    factors: list[tuple[int, int]]
    reads: dict[int, int] = field(default_factory=dict)


def fuse(
    records: Sequence[OpRecord], starts: Sequence[int], fma: int, rows: dict[int, int]
) -> tuple[list[OpRecord], list[int]]:
    """(the records, where each instruction's begin). fma: its row; rows: length of chains -> their row."""
    cuts = {starts[to] for record in records for to in (record.target, *record.targets) if to >= 0}
    uses = Counter(register for record in records for register in record.reads)
    writes = Counter(register for record in records for register in record.writes)
    chains = _chains(records, cuts, fma, {r for r in uses if uses[r] == 1 and writes[r] == 1})
    return _grouped(records, starts, cuts, chains, fma, rows)


def _chains(records: Sequence[OpRecord], cuts: set[int], fma: int, once: set[int]) -> list[Chain | None | bool]:
    """By record: the chain that ends there, None where it went into one, False for any other instruction."""
    chains: list[Chain | None | bool] = [False] * len(records)
    made: dict[int, int] = {}  # register -> the fma of this block that made it
    written: dict[int, int] = {}  # register -> the last record of this block that wrote it
    for place, record in enumerate(records):
        if place in cuts or record.target >= 0 or record.targets or record.ends:
            made, written = {}, {}
        if record.row == fma and record.kills:
            d, a, b, c = record.slots
            chain = Chain(d, c, [(a, b)], dict.fromkeys((a, b, c), place))
            before = made.get(c, -1)
            earlier = chains[before] if before >= 0 else None
            if isinstance(earlier, Chain) and c in once and c not in (a, b) and len(earlier.factors) < LONGEST:
                unchanged = all(written.get(r, -1) < at for r, at in earlier.reads.items())
                if unchanged:
                    chain = Chain(d, earlier.addend, [*earlier.factors, (a, b)], earlier.reads | {a: place, b: place})
                    for register, at in earlier.reads.items():
                        chain.reads[register] = min(at, chain.reads[register])
                    chains[before] = None
            chains[place] = chain
            made[d] = place
        for register in record.writes:
            written[register] = place
            if record.row != fma:
                made.pop(register, None)
    return chains


def _grouped(
    records: Sequence[OpRecord], starts: Sequence[int], cuts: set[int],
    chains: Sequence[Chain | None | bool], fma: int, rows: dict[int, int],
) -> tuple[list[OpRecord], list[int]]:  # fmt: skip
    made: list[OpRecord] = []
    moved: list[int] = []  # old place -> new place
    group: list[Chain] = []

    def flush(pc: int) -> None:
        if group:
            made.append(_record(group, pc, fma, rows))
            group.clear()

    for place, record in enumerate(records):
        chain = chains[place]
        if place in cuts:
            flush(record.pc)
        if isinstance(chain, Chain):
            if not _joins(group, chain):
                flush(record.pc)
            moved.append(len(made))
            group.append(chain)
        elif chain is None:
            moved.append(len(made))
        else:
            flush(record.pc)
            moved.append(len(made))
            made.append(record)
    moved.append(len(made))
    return made, [moved[place] for place in starts]


def _joins(group: list[Chain], chain: Chain) -> bool:
    """Whether a chain shares its factors on one side with those of the group, and reads none of their sums."""
    if not group:
        return True
    sums = {one.sum for one in group}
    if len(group) >= MOST or chain.sum in sums or not sums.isdisjoint(chain.reads):
        return False
    if any(chain.sum in one.reads for one in group) or len(chain.factors) != len(group[0].factors):
        return False
    return bool(_shared([*group, chain]))


def _shared(group: Sequence[Chain]) -> tuple[int, ...]:
    """The factors that all chains have, one of each product; () where there are none."""
    shared = []
    for products in zip(*(chain.factors for chain in group), strict=True):
        common = set(products[0]).intersection(*map(set, products[1:]))
        if not common:
            return ()
        shared.append(min(common, key=products[0].index))
    return tuple(shared)


def _record(group: Sequence[Chain], pc: int, fma: int, rows: dict[int, int]) -> OpRecord:
    if len(group) == 1 and len(group[0].factors) == 1:  # the record of one fma needs no list
        (a, b), c, d = group[0].factors[0], group[0].addend, group[0].sum
        return OpRecord(fma, [d, a, b, c], pc, reads=[a, b, c], writes=[d])
    shared = _shared(group)
    listed = list(shared)
    for chain in group:
        own = [b if a == s else a for (a, b), s in zip(chain.factors, shared, strict=True)]
        listed += [chain.sum, chain.addend, *own]
    sums = [chain.sum for chain in group]
    return OpRecord(
        rows[len(shared)], [len(shared), len(group), -1, -1], pc, plain=frozenset({0, 1, 2, 3}), listed=listed,
        list_slot=2, reads=[r for r in listed if r not in sums], writes=sums,
    )  # fmt: skip
