"""A block of instructions that always run together, as functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Step = Callable[[Any], None]  # runs an instruction for a group of threads (core.sim.resident.Group)
End = Callable[[Any], int]  # runs a block's last instruction; the next program counter, or GONE


@dataclass
class Block:
    """Instructions that always run together; `end` gives the next program counter. Functions are made of them at the
    first use, since many programs are linked to be counted only, and others run in part.

    steps, covers: the functions, and how many instructions each one is.
    """

    start: int
    stop: int
    build: Callable[[], tuple[list[Step], list[int], End]]

    @cached_property
    def built(self) -> tuple[list[Step], list[int], End]:
        return self.build()

    @cached_property
    def steps(self) -> list[Step]:
        return self.built[0]

    @cached_property
    def covers(self) -> list[int]:
        return self.built[1]

    @cached_property
    def end(self) -> End:
        return self.built[2]
