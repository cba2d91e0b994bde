"""The exchange of a run's ranks after each step: whether all of them updated, or none, and their times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from core.errors import NumericsError
from core.ranks.beats import Lagging
from core.ranks.group import Ranks

DONE = {(False, False): "updated", (True, False): "skipped the update", (True, True): "stopped"}  # not ok, halted


class RollCall:
    """print_line: called with a warning about slow ranks."""

    def __init__(self, ranks: Ranks, print_line: Callable[[str], None]) -> None:
        self.ranks, self.print_line = ranks, print_line
        self.lagging = Lagging()
        self.hosts = {rank: ranks.host(rank) for rank in range(ranks.size)}

    def call(self, step: int, record: Any, seconds: float) -> None:
        """record: of a step, with ok, halted, loss and norm. seconds: this rank's own part of it, without waiting.

        Raises NumericsError unless all ranks did the same.
        """
        row = np.array([not record.ok, record.halted, record.loss, record.norm, seconds], np.float64)
        rows = [np.frombuffer(data) for data in self.ranks.gather(row.tobytes())]
        did = [DONE[bool(row[0]), bool(row[1])] for row in rows]
        other = next((rank for rank, done in enumerate(did) if done != did[0]), None)
        if other is not None:
            said = [f"rank {rank} on {self.hosts[rank]} {did[rank]}, with loss {rows[rank][2]:.9g} and norm "
                    f"{rows[rank][3]:.9g}" for rank in (0, other)]  # fmt: skip
            raise NumericsError(
                f"step {step}: {'; '.join(said)}: their parameters would differ from now on",
                hint="the ranks' machines compute differently, or one of them makes errors; --resume continues from "
                "the newest checkpoint",
            )
        line = self.lagging.see(step, [float(row[4]) for row in rows], self.hosts)
        if line:
            self.print_line(f"note: {line}")
