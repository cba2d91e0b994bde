"""Ranks that are forked from a test, joined by pipes: saves and shapes of many ranks in little time, without MPI.

A rank whose peer is gone ends, as a launcher has it.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

import numpy as np

from core.ranks.group import Ranks

GONE = 9  # the exit code of a rank whose peer is gone


class PipedRanks(Ranks):
    """Rank 0 has a pipe to each other rank."""

    engine = "pipes"

    def __init__(self, rank: int, size: int, pipes: list[Any]) -> None:
        self.rank, self.size, self.local, self._pipes = rank, size, rank, pipes

    def gather(self, data: bytes) -> list[bytes]:
        try:
            if self.leads:
                parts = [data, *(pipe.recv_bytes() for pipe in self._pipes)]
                for pipe in self._pipes:
                    pipe.send(parts)
                return parts
            self._pipes[0].send_bytes(data)
            return list(self._pipes[0].recv())
        except (EOFError, OSError):
            os._exit(GONE)


class Summing(PipedRanks):
    """With the sums that the variant `host` asks of MPI."""

    engine = "mpi"

    def all_reduce(self, flat: Any) -> None:
        flat[...] = sum(np.frombuffer(part, flat.dtype) for part in self.gather(flat.tobytes()))

    def reduce_scatter(self, flat: Any, part: Any, cuts: list[int]) -> None:
        self.all_reduce(flat)
        part[...] = flat[cuts[self.rank] : cuts[self.rank + 1]]

    def all_gather(self, part: Any, flat: Any, cuts: list[int]) -> None:
        flat[...] = np.concatenate([np.frombuffer(one, part.dtype) for one in self.gather(part.tobytes())])


def on_ranks(size: int, work: Callable[[Ranks], object]) -> list[int]:
    """`work(ranks)` in a process for each rank; their exit codes, negative for the signal that ended one."""
    pipes = [Pipe() for _ in range(size - 1)]
    children = []
    for rank in range(size):
        child = os.fork()
        if not child:
            own = [ours for ours, _ in pipes] if rank == 0 else [pipes[rank - 1][1]]
            for end in {end for pair in pipes for end in pair} - set(own):
                end.close()
            try:
                work(PipedRanks(rank, size, own))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(70)
        children.append(child)
    for end in (end for pair in pipes for end in pair):
        end.close()
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
