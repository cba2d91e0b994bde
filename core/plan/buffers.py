"""One arena for everything that lives within a step: offsets from lifetimes, largest first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.dtypes import itemsize
from core.expr import cdiv

ALIGN = 256  # bytes: where every tensor starts
FOREVER = 10**9
# the parts of the memory that a plan needs; all others are within one of these
HELD = ("parameters", "master weights", "gradients", "optimizer", "health", "state", "scratch", "activations")


@dataclass(eq=False)
class Buffer:
    """A tensor of a plan. `home` is the owner of its memory:

    "arena": planned here, alive from step `first` to step `last`; "param" and "grad": the flat arenas; "input",
    "seed", "key", "start", "counts": written by the engine before the step; "state": a decode session; "counter":
    zeros.
    init: of a state of constant size, the contents before a row's first token.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    home: str = "arena"
    role: str = "activation"  # or "saved", "gradient", "temporary", "workspace": for the plan's table
    first: int = FOREVER
    last: int = -1
    offset: int = 0
    init: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes, rounded up to ALIGN."""
        return cdiv(math.prod(self.shape) * itemsize(self.dtype), ALIGN) * ALIGN

    def use(self, step: int) -> None:
        self.first, self.last = min(self.first, step), max(self.last, step)


def alive(buffers: list[Buffer], step: int) -> list[Buffer]:
    """The buffers that hold something at `step`."""
    return [b for b in buffers if b.first <= step <= b.last]
