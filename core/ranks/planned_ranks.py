"""Ranks that are not there: the memory and launches of one of N processes, planned in one process."""

from __future__ import annotations

from core.errors import BuildError
from core.ranks.group import Ranks


class PlannedRanks(Ranks):
    """Rank 0 of `size` processes, of which none runs: it has no engine, so that no collective op is chosen."""

    def __init__(self, size: int) -> None:
        self.size = size

    def describe(self) -> str:
        return f"{self.size} ranks, planned"

    def gather(self, data: bytes) -> list[bytes]:
        raise BuildError("ranks that are planned exchange nothing", hint="mpiexec -n N core ... starts ranks")
