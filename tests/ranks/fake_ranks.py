"""Rank 0 of two without a second process: the other rank gives what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core import Ranks


class Beside(Ranks):
    """On the hosts a and b. theirs: what rank 1 gives to each gather, in order; without one, what this rank gives.
    gave: what this rank gave."""

    size = 2
    hosts = ("a", "b")

    def __init__(self, *theirs: bytes) -> None:
        self.theirs, self.gave = list(theirs), list[bytes]()

    def gather(self, data: bytes) -> list[bytes]:
        self.gave.append(data)
        return [data, self.theirs.pop(0) if self.theirs else data]


class Second(Ranks):
    """Rank 1 of two, joined by MPI as its variants see it. chosen: what rank 0 decides, from what this rank would."""

    size, rank, engine = 2, 1, "mpi"
    hosts = ("a", "b")

    def __init__(self, chosen: Callable[[Any], Any]) -> None:
        self.chosen = chosen

    def decide(self, choose: Callable[[], Any]) -> Any:
        return self.chosen(choose())

    def all_reduce(self, flat: Any) -> None:
        """Nothing: no step is run."""
