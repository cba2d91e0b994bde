"""The geometry of a launch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
        return int(np.prod(self.block))

    @property
    def blocks(self) -> int:
        return int(np.prod(self.grid))
