"""The group of all processes of an MPI world. Importing this begins MPI: mpi4py calls MPI_Init_thread."""

import os
import threading

import numpy as np
from mpi4py import MPI

from core import Ranks

from .last_resort import end_daemon_later

PIECE = 16 << 20  # bytes summed at a time: one call for a whole arena takes twice as long (DISTRIBUTED in LOG.md)
LAST_WORDS = 1.0  # seconds for a daemon that does not answer, as behind a cable that was cut


class MpiRanks(Ranks):
    """MPI_COMM_WORLD, through a communicator of its own."""

    engine = "mpi"

    def __init__(self, local):
        self.comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size, self.local = self.comm.rank, self.comm.size, local
        self.hosts = self.comm.allgather(MPI.Get_processor_name())
        self.side = MPI.COMM_WORLD.Dup()
        self.threaded = MPI.Query_thread() == MPI.THREAD_MULTIPLE  # whether a thread may send while another computes
        self.sent = []  # of messages under way: the request and its bytes
        self.sending = threading.Lock()

    def describe(self):
        version = MPI.Get_library_version().split(",")[0].strip("\0 ")
        return f"MPI ({version}), {self.size} ranks on {', '.join(dict.fromkeys(self.hosts))}"

    def gather(self, data):
        with self.waits("gather"):
            return self.comm.allgather(data)

    def share(self, data):
        with self.waits("share"):
            return self.comm.bcast(data)

    def abort(self, code):
        end_daemon_later()
        last = threading.Timer(LAST_WORDS, os._exit, (code,))
        last.daemon = True
        last.start()
        MPI.COMM_WORLD.Abort(code)

    @property
    def beats(self):
        return self.threaded

    def send(self, rank, data):
        if not self.threaded:
            return
        with self.sending:
            self.sent = [(request, data) for request, data in self.sent if not request.Test()]
            self.sent.append((self.side.Isend(data, rank), data))

    def received(self):
        messages, status = [], MPI.Status()
        while self.threaded and self.side.Iprobe(status=status):
            data = bytearray(status.Get_count())
            self.side.Recv(data, status.Get_source())
            messages.append(bytes(data))
        return messages

    # --- arrays, on the host -------------------------------------------------------------------------------------

    def all_reduce(self, flat):
        """flat (n,), contiguous: the sum over ranks in its place."""
        for piece in pieces(flat):
            with self.waits("all_reduce"):
                self.comm.Allreduce(MPI.IN_PLACE, piece)

    def reduce_scatter(self, flat, part, cuts):
        """part (m,): the sum over ranks of this rank's slice of flat (n,), which it may be itself."""
        for owner in range(self.size):
            inside = flat[cuts[owner] : cuts[owner + 1]]
            results = pieces(part) if owner == self.rank else [None] * len(pieces(inside))
            for piece, result in zip(pieces(inside), results, strict=True):
                same = result is not None and np.shares_memory(piece, result)
                with self.waits("reduce_scatter"):
                    self.comm.Reduce(MPI.IN_PLACE if same else piece, result, root=owner)

    def all_gather(self, part, flat, cuts):
        """flat (n,): the parts of all ranks in their slices."""
        own = flat[cuts[self.rank] : cuts[self.rank + 1]]
        if not np.shares_memory(own, part):
            own[...] = part
        for owner in range(self.size):
            for piece in pieces(flat[cuts[owner] : cuts[owner + 1]]):
                with self.waits("all_gather"):
                    self.comm.Bcast(piece.view(np.uint8), root=owner)


def pieces(flat):
    """A flat array as views of at most PIECE bytes."""
    step = PIECE // flat.itemsize
    return [flat[at : at + step] for at in range(0, len(flat), step)]
