"""The group of all processes of an MPI world. Importing this begins MPI: mpi4py calls MPI_Init_thread."""

import numpy as np
from mpi4py import MPI

from core import Ranks

PIECE = 16 << 20  # bytes summed at a time: one call for a whole arena takes twice as long (DISTRIBUTED in LOG.md)
OPERATIONS = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN}


class MpiRanks(Ranks):
    """MPI_COMM_WORLD, through a communicator of its own."""

    engine = "mpi"

    def __init__(self, local):
        self.comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size, self.local = self.comm.rank, self.comm.size, local
        self.hosts = self.comm.allgather(MPI.Get_processor_name())

    def describe(self):
        version = MPI.Get_library_version().split(",")[0].strip("\0 ")
        return f"MPI ({version}), {self.size} ranks on {', '.join(dict.fromkeys(self.hosts))}"

    def gather(self, data):
        return self.comm.allgather(data)

    def share(self, data):
        return self.comm.bcast(data)

    def abort(self, code):
        MPI.COMM_WORLD.Abort(code)

    # --- arrays, on the host -------------------------------------------------------------------------------------

    def all_reduce(self, flat):
        """flat (n,), contiguous: the sum over ranks in its place."""
        for piece in pieces(flat):
            self.comm.Allreduce(MPI.IN_PLACE, piece)

    def reduce_scatter(self, flat, part, cuts):
        """part (m,): the sum over ranks of this rank's slice of flat (n,), which it may be itself."""
        for owner in range(self.size):
            inside = flat[cuts[owner] : cuts[owner + 1]]
            results = pieces(part) if owner == self.rank else [None] * len(pieces(inside))
            for piece, result in zip(pieces(inside), results, strict=True):
                same = result is not None and np.shares_memory(piece, result)
                self.comm.Reduce(MPI.IN_PLACE if same else piece, result, root=owner)

    def all_gather(self, part, flat, cuts):
        """flat (n,): the parts of all ranks in their slices."""
        own = flat[cuts[self.rank] : cuts[self.rank + 1]]
        if not np.shares_memory(own, part):
            own[...] = part
        for owner in range(self.size):
            for piece in pieces(flat[cuts[owner] : cuts[owner + 1]]):
                self.comm.Bcast(piece.view(np.uint8), root=owner)


def pieces(flat):
    """A flat array as views of at most PIECE bytes."""
    step = PIECE // flat.itemsize
    return [flat[at : at + step] for at in range(0, len(flat), step)]
