"""The geometry of a launch."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARP = 32
WARPGROUP = 128


@dataclass(frozen=True)
class Shape:
    """The geometry of a launch."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: int = 1

    @property
    def threads(self) -> int:
        return math.prod(self.block)

    @property
    def blocks(self) -> int:
        return math.prod(self.grid)
