"""The collective ops for tensors of a device that has its own memory: through the host, by MPI.

Each op is a download, a sum or gather, and an upload, in pieces. A graph is split at each op, and nothing overlaps.
These variants join simulators, several ranks on one GPU, and GPUs without NCCL.
"""

from functools import partial

import numpy as np

from core import Variant

PIECE = 4 << 20  # elements that the host holds at a time


class _Host(Variant):
    name, device, source = "host", "cuda", ()
    priority = 5  # below the priority of a library that reads the device's memory directly

    def why_not(self, t):
        return None if t.ranks.engine == "mpi" else "the ranks of this run are not joined by MPI"


class AllReduceHost(_Host):
    """The sum by MPI on the host."""

    op = "all_reduce"

    def forward(self, t, launch):
        for start, stop in pieces(t.n):
            flat = t.flat[start:stop]
            launch.on_host(partial(summed, t.ranks), [flat], [flat])


class ReduceScatterHost(_Host):
    """Each slice summed towards its owner by MPI on the host."""

    op = "reduce_scatter"

    def forward(self, t, launch):
        for start, stop in pieces(t.n):
            cuts, own = within(t, start, stop)
            launch.on_host(partial(scattered, t.ranks, cuts), [t.flat[start:stop]], [t.part[own]])


class AllGatherHost(_Host):
    """Each slice sent by its owner, by MPI on the host."""

    op = "all_gather"

    def forward(self, t, launch):
        kind = np.float64 if t.flat.dtype == "f64" else np.float32
        for start, stop in pieces(t.n):
            cuts, own = within(t, start, stop)
            launch.on_host(partial(gathered, t.ranks, cuts, kind), [t.part[own]], [t.flat[start:stop]])


def pieces(n):
    """(start, stop) of the pieces of n elements."""
    return [(start, min(start + PIECE, n)) for start in range(0, n, PIECE)]


def within(t, start, stop):
    """The cuts of a piece, from its start, and the slice of `t.part` that is in the piece."""
    cuts, rank = t.cuts or t.ranks.cuts(t.n), t.ranks.rank
    clipped = [min(max(cut, start), stop) - start for cut in cuts]
    first = start - cuts[rank]
    own = slice(clipped[rank] + first, clipped[rank + 1] + first) if clipped[rank] < clipped[rank + 1] else slice(0, 0)
    return clipped, own


def summed(ranks, flat):
    ranks.all_reduce(flat)
    return [flat]


def scattered(ranks, cuts, flat):
    part = np.empty(cuts[ranks.rank + 1] - cuts[ranks.rank], flat.dtype)
    ranks.reduce_scatter(flat, part, cuts)
    return [part]


def gathered(ranks, cuts, kind, part):
    flat = np.empty(cuts[-1], kind)
    ranks.all_gather(part, flat, cuts)
    return [flat]
