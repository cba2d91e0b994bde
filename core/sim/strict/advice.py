"""Hints for races: the barrier, fence or flag that would order the two accesses."""

from __future__ import annotations

import numpy as np

from core.sim.machine.wording import Wording
from core.sim.strict.clocks import WARP, Clocks
from core.sim.strict.races import At, Other

LANES = (
    "__syncwarp() between the two, __syncthreads() where other warps take part: lanes of a warp do not run in step "
    "(since Volta)"
)
BLOCK = "__syncthreads() between the two"
GRID = (
    "a second launch; or a flag (an atomic) with __threadfence() before it on the writing side and after it on the "
    "reading side"
)
OWNER = "give the two threads different indices (blockIdx, threadIdx), or use an atomic"


def hint(clocks: Clocks, words: Wording, at: At, place: int, other: Other, written_at: int) -> str:
    """For grain `place` of an access and the access that it is not ordered with, which was at `written_at`."""
    mine, theirs = int(at.warps[place]), other.thread // WARP - clocks.first
    if mine == theirs:
        return LANES
    if mine // clocks.block_warps == theirs // clocks.block_warps:
        return BLOCK
    if not clocks.crossing or not 0 <= theirs < clocks.count or other.how != "write":
        return GRID
    return _fences(clocks, words, mine, theirs, written_at)


def _fences(clocks: Clocks, words: Wording, mine: int, theirs: int, time: int) -> str:
    """A write of warp `theirs` at `time` that warp `mine` cannot know of, in a kernel that uses fences and flags."""
    warps, column = clocks.block_warps, int(clocks.column[theirs])
    here, there = (np.arange(warp // warps * warps, (warp // warps + 1) * warps) for warp in (mine, theirs))
    block = words.block((theirs + clocks.first) // warps)
    if (clocks.heard[here, column] >= time).any():
        return (
            "the reading side lacks its fence: __threadfence() after the atomic (or load) that reads the flag, and "
            "before this read"
        )
    fenced = clocks.given[there]
    covered = clocks.fenced[theirs, column] >= time and not clocks.given[theirs].any()
    partial = any(
        row.any() and row[column] < time for w, row in zip(there.tolist(), fenced, strict=True) if w != theirs
    )
    if fenced.any() and (covered or partial):
        return (
            f"the fence of {block} stands before the barrier, so that it covers only its own thread's writes: first "
            "__syncthreads(), then __threadfence() by the thread that sets the flag, then the flag"
        )
    return f"the writing side lacks its fence: __threadfence() in {block} between this write and the flag"
