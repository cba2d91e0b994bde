"""Slices of the flat arenas, one per rank: the part that a rank updates where moments exist once in all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from core.errors import BuildError
from core.expr import cdiv
from core.ranks.group import Ranks
from core.step_record import CHUNK, GROUP


@dataclass(frozen=True)
class Slices:
    """Slices of a flat order of elements.

    cuts: size + 1 offsets in elements; rank r has [cuts[r], cuts[r + 1]). ranks: the processes of the run. gather: the
    op that puts slices together on every rank; "" where nothing runs.
    """

    cuts: tuple[int, ...]
    ranks: Ranks
    gather: str = ""

    @property
    def first(self) -> int:
        """The first element of this rank's slice."""
        return self.cuts[self.ranks.rank]

    @property
    def last(self) -> int:
        """The end of this rank's slice: its last element + 1."""
        return self.cuts[self.ranks.rank + 1]

    @property
    def largest(self) -> int:
        """Elements of the largest slice."""
        return max(b - a for a, b in zip(self.cuts, self.cuts[1:], strict=False))

    def cut_by(self, grain: int) -> list[int]:
        """size + 1 offsets into the numbers of all slices, of which each has one for every `grain` elements."""
        sizes = [cdiv(b - a, grain) for a, b in zip(self.cuts, self.cuts[1:], strict=False)]
        return [0, *accumulate(sizes)]


def cut_at_chunks(elements: int, ranks: int) -> tuple[int, ...]:
    """Equal slices, cut at multiples of CHUNK; of a smaller power of 2 where there are not as many chunks as ranks.

    elements: a multiple of GROUP. Raises BuildError where there are fewer groups than ranks.
    """
    grain = CHUNK
    while grain > GROUP and elements < grain * ranks:
        grain //= 2
    count = cdiv(elements, grain)
    if count < ranks:
        raise BuildError(f"{elements:,} elements have {count} groups of {GROUP}, and there are {ranks} ranks")
    return (*(count * rank // ranks * grain for rank in range(ranks)), elements)


def cut_between(starts: Sequence[int], elements: int, ranks: int) -> tuple[int, ...]:
    """Slices of about equal size that begin at some of `starts`, ascending offsets of which the first is 0.

    Raises BuildError where there are fewer starts than ranks.
    """
    if len(starts) < ranks:
        raise BuildError(f"{len(starts)} parameters train, and there are {ranks} ranks")
    cuts, at = [0], 0
    for rank in range(1, ranks):
        last = len(starts) - (ranks - rank)  # each later rank has one at least
        ideal = elements * rank / ranks
        at = min(range(at + 1, last + 1), key=lambda place: abs(starts[place] - ideal))
        cuts.append(starts[at])
    return (*cuts, elements)
