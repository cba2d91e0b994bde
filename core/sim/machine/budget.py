"""The budget of a kernel: branches per thread block after which it is reported as endless.

A branch back to the start of a loop counts, and a branch at which lanes diverge; straight code is free. Counting is by
the group of lanes that runs in lockstep, which costs nothing; once a group is over the limit, it is counted again by
thread block, so that many thread blocks with loops of different lengths do not count as one with a long loop. Strict
mode counts by thread block from the start.
"""

from __future__ import annotations

import numpy as np

from core import variables
from core.sim.ptx.register_types import Array

# The longest loops of real sizes take fewer: one thread over a vocabulary of 256,000 (Gemma's), over the 65,536 rows of
# 64 x 1,024 tokens, or over K = 3,072. An endless one reaches that number in less than a second, or in a few where
# it computes or waits at barriers in strict mode.
LIMIT = 300_000
BARRIER = 20  # branches that a barrier counts as: its cost
VARIABLE = "CORELM_SIM_LIMIT"  # environment: another limit
SLICE = 1 << 14  # blocks of instructions between two looks at the limit


def default_limit() -> int:
    """LIMIT, or the environment's value. Raises UsageError for a value that is not a number."""
    return variables.count(VARIABLE) or LIMIT


class Turns:
    """The branches that a group has taken; in `by_block` those of each thread block, once they are counted so."""

    def __init__(self, blocks: int) -> None:
        """blocks: as many thread blocks to count apart from the start; 0 for none."""
        self.taken = 0
        self.by_block: Array | None = np.zeros(blocks, np.int64) if blocks else None

    def over(self, limit: int, blocks: int) -> bool:
        """Whether one of the group's thread blocks is over the limit; `blocks` are resident together."""
        if self.taken <= limit:
            return False
        if self.by_block is None and blocks > 1:
            self.taken, self.by_block = 0, np.zeros(blocks, np.int64)
            return False
        return self.by_block is None or int(self.by_block.max()) > limit
