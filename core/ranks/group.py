"""Ranks, the processes of one run, and their common operations other than collective ops.

Tensors are summed and gathered by ops (`all_reduce`, `reduce_scatter`, `all_gather`), whose variants reach the engine's
own communicator through `t.ranks`. A group exchanges small values: numbers, bytes, and the end of the run.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

import numpy as np

from core.errors import BuildError

Array = np.ndarray[Any, Any]
T = TypeVar("T")
REDUCTIONS: dict[str, Callable[..., Any]] = {"sum": np.sum, "max": np.max, "min": np.min}


class Ranks:
    """A process alone; the base of an engine's group (`RanksKind.open`).

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
    reliable = True  # whether all that `send` sends arrives, so that a rank that was never heard is a dead one
    finished = False  # whether all ranks have done all that they do together
    witnessed: Sequence[int] = ()  # signals that `signalled` sees in addition to those that end a run

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes the files and prints."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """The name of this rank in messages: "rank 1 of 4 on node7"."""
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
        channel sends nothing: its ranks exchange no heartbeats."""

    def signalled(self, number: int, wanted: bool) -> None:
        """A signal has come to this process; called at once, in a thread. wanted: whether the run trains and is whole,
        so that all ranks are to finish their step, which some launchers would not wait for."""

    def falls(self) -> None:
        """Another rank ends the run, so that nothing is left to finish. Called in a thread."""

    def close(self, code: int) -> None:
        """The last call of a rank whose run has finished, before its process ends with that code."""

    @property
    def warning(self) -> str:
        """A warning for the run's first lines, or ""."""
        return ""

    @property
    def beats(self) -> bool:
        """Whether the others receive the bytes of `send`, so that a silent rank is a dead one."""
        return type(self).send is not Ranks.send

    def received(self) -> list[bytes]:
        """The bytes that other ranks have sent to this one since the last call."""
        return []

    def cuts(self, n: int) -> list[int]:
        """size + 1 offsets that cut n elements into equal slices, one for each rank.

        Raises BuildError where n is no multiple of the size.
        """
        if n % self.size:
            raise BuildError(f"{n} elements do not divide into {self.size} equal slices", hint="give cuts")
        return [n // self.size * rank for rank in range(self.size + 1)]

    # --- the activity of a rank, for the others to read -----------------------------------------------------------

    def states(self, phase: str, step: int | None = None, long: bool = False) -> None:
        """Set the state of this rank, a `Doing`. step: unchanged where it is None."""
        if self.size > 1:
            from core.ranks.doing import begin  # of runs on several ranks

            begin(self, phase, step, long)

    def waits(self, collective: str) -> AbstractContextManager[None]:
        """While the block runs, this rank waits for the others; a collective in pieces enters it once a piece."""
        from core.ranks.doing import waiting

        return waiting(self, collective)

    def polls(self, collective: str, seconds: float = 0.0) -> None:
        """Record that this rank has waited some seconds for its device, which runs a collective; "" at its end."""
        from core.ranks.doing import polls

        polls(self, collective, seconds)

    # --- derived from these ------------------------------------------------------------------------------------

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
        """Return when every rank has called this: from then on a rank may end alone."""
        self.wait()
        self.finished = True


ALONE = Ranks()
