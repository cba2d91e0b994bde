"""Ranks, the processes of one run, and their common operations besides collective ops.

Tensors are summed and gathered by ops (`all_reduce`, `reduce_scatter`, `all_gather`), whose variants reach the engine's
own communicator through `t.ranks`. A group exchanges small values: numbers, bytes, and the end of the run.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
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
    hosts: Sequence[str] = ()  # of each rank
    limit = 60.0  # [train] rank_timeout, seconds
    waited = 0.0  # seconds in collectives so far
    doing: Any = None  # the `Doing` of a rank among several
    watcher: Any = None  # its `Watcher`
    finished = False  # whether all ranks have done all that they do together

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes files and speaks."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """This rank in words: "rank 1 of 4 on node7"."""
        return f"rank {self.rank} of {self.size} on {self.host(self.rank)}"

    def host(self, rank: int) -> str:
        """The name of a rank's host."""
        return self.hosts[rank] if rank < len(self.hosts) else socket.gethostname()

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

    def send(self, rank: int, data: bytes) -> None:
        """Send a few bytes beside all collectives, from any thread, and return at once. An engine without a side
        channel sends nothing: its ranks watch each other by no beats."""

    @property
    def beats(self) -> bool:
        """Whether the others receive what `send` sends, so that a silent rank is a dead one."""
        return type(self).send is not Ranks.send

    def received(self) -> list[bytes]:
        """What other ranks have sent to this one since the last call."""
        return []

    def cuts(self, n: int) -> list[int]:
        """size + 1 offsets that cut n elements into equal slices, one for each rank.

        Raises BuildError where n is no multiple of the size.
        """
        if n % self.size:
            raise BuildError(f"{n} elements do not divide into {self.size} equal slices", hint="give cuts")
        return [n // self.size * rank for rank in range(self.size + 1)]

    # --- what a rank is doing, which the others may ask -----------------------------------------------------------

    def states(self, phase: str, step: int | None = None, long: bool = False) -> None:
        """Say what this rank does from now on: `Doing`. step: as before where it is None."""
        if self.size > 1:
            from core.ranks.doing import begin  # of runs on several ranks

            begin(self, phase, step, long)

    def waits(self, collective: str) -> AbstractContextManager[None]:
        """While the block runs, this rank waits for the others; a collective in pieces enters it once a piece."""
        from core.ranks.doing import waiting

        return waiting(self, collective)

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

    def finish(self) -> None:
        """Return when every rank has called this: from then on a rank may end by itself."""
        self.wait()
        self.finished = True


ALONE = Ranks()
LAST_MESSAGE = 0.15  # seconds in which the others read that this rank ends the run
UNFINISHED = 70  # the exit code of a rank that ended too early without one


def leave(group: Ranks, code: int) -> None:
    """The last step of a rank. One that ends before all have finished ends the others too, since they would wait for it
    for ever."""
    if group.finished:
        if group.watcher is not None:
            group.watcher.end()
    elif group.size > 1:
        if group.watcher is not None:
            group.watcher.leaves()
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(LAST_MESSAGE)
        group.abort(code or UNFINISHED)
