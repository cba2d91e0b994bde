"""Launches of kernels that read each row once for its own sums and for those of its columns: core/teams.cuh.

A team of warps has a row. A lane keeps the sums of its columns in registers over all rows of its thread block, and its
part of the row while it is in use; of more columns, it reads that part a second time, from cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.expr import cdiv
from core.kernels.columns import FOLD
from core.kernels.width import width

WARPS = 16  # of a multiprocessor at once: 128 registers a thread
SMALL = 4  # rows of a thread block at a time, where one warp has a row
# Columns of a lane, by the width of its loads: of one that keeps its part of the row, and of one that keeps sums alone
LANE = {8: (24, 40), 4: (16, 40), 1: (16, 32)}
MULTIPROCESSORS = 256  # at most: room for the sums of their thread blocks


@dataclass(frozen=True)
class Teams:
    """width, team, packs, keep: the macros WIDTH, TEAM, PACKS and KEEP. Of rows of `columns`."""

    columns: int
    width: int
    team: int
    packs: int
    keep: bool

    @property
    def teams(self) -> int:
        """Rows of a thread block at a time."""
        return SMALL if self.team == 1 else 1

    def slices(self, rows: int, sms: int) -> tuple[int, int]:
        """(thread blocks, rows of one), of as many as run at once."""
        blocks = min(sms, MULTIPROCESSORS) * (WARPS // (self.team * self.teams))
        each = max(cdiv(rows, blocks), self.teams)
        return cdiv(rows, each), each

    def partial_bytes(self, rows: int, sums: int) -> int:
        """Bytes of the slices' sums, (slices, sums, columns) floats, on any GPU."""
        return 4 * self.slices(rows, MULTIPROCESSORS)[0] * sums * self.columns

    def launch(self, count: int, sums: int) -> dict[str, Any]:
        """grid, block, smem and macros of a kernel with `sums` sums of each column."""
        define = {"WIDTH": self.width, "TEAM": self.team, "PACKS": self.packs, "KEEP": int(self.keep)}
        smem = 4 * sums * self.packs * self.width * 32 if self.teams > 1 else 0
        return {"grid": count, "block": (32 * self.team, self.teams), "smem": smem, "define": define}


def teams_of(columns: int, tensor: Any) -> Teams:
    """The teams for rows of `columns` columns. Limit: `too_wide`."""
    each = width(columns, tensor)
    keeping, most = LANE[each]
    keep = columns <= 32 * WARPS * keeping
    team = cdiv(columns, 32 * (keeping if keep else most))
    return Teams(columns, each, team, cdiv(columns, each * 32 * team), keep)


def too_wide(columns: int, tensor: Any) -> str | None:
    """The reason why a variant with teams does not take rows of `columns` columns; None if it does."""
    most = 32 * WARPS * LANE[width(columns, tensor)][1]
    return f"C = {columns}; a team's registers hold the sums of at most {most} columns" if columns > most else None


class OnePassRows:
    """Base, beside `Variant`, of variants whose backward reads each row of `x` (..., C) once: the limit of C, the
    workspace, examples of every size of a team. sums: of each column over the rows, such as 2 for the gradients of a
    weight and of a bias.
    """

    sums = 1
    examples = [
        {"x": (515, 264)},  # slices of four rows, of which the last one has fewer; packs beyond the row
        {"x": (7, 1544)},  # a team of several warps
        {"x": (2, 8200)},  # rows that a team reads again from cache: 12,288 in 16 bits
        {"x": (1, 12296)},
    ]
    uncovered = {FOLD: "a second turn has more than 32 slices; tests/sim/test_headers.py has them"}

    def why_not(self, t: Any) -> str | None:
        """The limit of C, as text; None within it."""
        return too_wide(t.C, t.x)

    def workspace(self, t: Any) -> int:
        """Bytes of the slices' sums, on any GPU."""
        return teams_of(t.C, t.x).partial_bytes(t.rows, self.sums)

    def slices(self, t: Any, launch: Any, params: bool) -> tuple[Any, int, int, dict[str, Any]]:
        """The sums (slices, `sums`, C) of the thread blocks, None without `params`; slices; rows of one; and how to
        launch the kernel that writes them."""
        teams = teams_of(t.C, t.x)
        count, each = teams.slices(t.rows, launch.sms)
        partials = launch.workspace.part(0, (count, self.sums, t.C), "f32") if params else None
        return partials, count, each, teams.launch(count, self.sums)
