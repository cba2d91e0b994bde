"""Ranks, the processes of one run, and their common operations besides collective ops.

Tensors are summed and gathered by ops (`all_reduce`, `reduce_scatter`, `all_gather`), whose variants reach the engine's
own communicator through `t.ranks`. A group exchanges small values: numbers, bytes, and the end of the run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from core.errors import BuildError

Array = np.ndarray[Any, Any]
T = TypeVar("T")
REDUCTIONS: dict[str, Callable[..., Any]] = {"sum": np.sum, "max": np.max, "min": np.min}


class Ranks:
    """A process by itself; the base of what an engine brings (`RanksKind.open`).

    rank: 0 .. size - 1. size: the number of processes. local: the rank among those of this host. An engine's class
    defines `gather`, from which the rest follows, and `abort`; it may define faster forms of the others.
    """

    engine: ClassVar[str] = ""  # the name of the engine, such as "mpi"
    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes files and speaks."""
        return self.rank == 0

    def describe(self) -> str:
        """One line for people: engine, version, ranks and hosts."""
        return "one process"

    def gather(self, data: bytes) -> list[bytes]:
        """The values of all ranks, in the order of ranks, on every rank."""
        return [data]

    def share(self, data: bytes) -> bytes:
        """The value of rank 0, on every rank."""
        return self.gather(data)[0]

    def agree(self, values: Sequence[float], how: str = "sum") -> Array:
        """Numbers (n,) reduced over the ranks, element by element in f64: how is "sum", "max" or "min".

        Sums have the order of ranks, so that they repeat.
        """
        parts = [np.frombuffer(part) for part in self.gather(np.asarray(values, np.float64).tobytes())]
        return np.asarray(REDUCTIONS[how](np.stack(parts), axis=0))

    def abort(self, code: int) -> None:
        """End all processes of the run with an exit code, at once."""
        os._exit(code)

    def cuts(self, n: int) -> list[int]:
        """size + 1 offsets that cut n elements into equal slices, one for each rank.

        Raises BuildError where n is no multiple of the size.
        """
        if n % self.size:
            raise BuildError(f"{n} elements do not divide into {self.size} equal slices", hint="give cuts")
        return [n // self.size * rank for rank in range(self.size + 1)]

    # --- what follows ------------------------------------------------------------------------------------------

    def decide(self, choose: Callable[[], T]) -> T:
        """The result of `choose()` on rank 0, which alone calls it, as JSON: on every rank."""
        if self.size == 1:
            return choose()
        text = json.dumps(choose()).encode() if self.leads else b""
        chosen: T = json.loads(self.share(text))
        return chosen

    def in_turn(self, work: Callable[[], T]) -> T:
        """`work()` on every rank: first where a host's files are made, then on that host's other ranks."""
        if self.size == 1:
            return work()
        result = work() if self.local == 0 else None
        self.gather(b"")
        return work() if self.local else result  # type: ignore[return-value]

    def wait(self) -> None:
        """Return when every rank has called this."""
        self.gather(b"")


ALONE = Ranks()


def leave(group: Ranks, code: int) -> None:
    """The last step of a rank: with an exit code other than 0, all others end too, since they would wait for ever."""
    if code and group.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        group.abort(code)
