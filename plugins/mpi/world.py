"""The group of all processes of an MPI world."""

import os
import signal
import threading
import time

import numpy as np

from core import Ranks

from .begun import MPI, begin
from .daemon import Hold, end_later, why_not_held

PIECE = 16 << 20  # bytes summed at a time: one call for a whole arena takes twice as long (DISTRIBUTED in LOG.md)
BUSY, LONGEST = 1e-3, 0.02  # seconds of a wait that occupies the core; the maximum between two polls
SHARE = 0.05  # the time between two polls, as a part of the wait so far
DELIVERY = 0.3  # seconds for sent messages to arrive, before a process may end without MPI_Finalize
LAST_WORDS = 1.0  # seconds for a daemon that does not answer, as after a cable was cut


class MpiRanks(Ranks):
    """MPI_COMM_WORLD, through a communicator of its own."""

    engine = "mpi"
    witnessed = (signal.SIGCONT,) if hasattr(signal, "SIGCONT") else ()

    def __init__(self, local):
        begin()
        self.comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size, self.local = self.comm.rank, self.comm.size, local
        self.hosts = self.comm.allgather(MPI.Get_processor_name())
        self.side = MPI.COMM_WORLD.Dup()
        self.threaded = MPI.Query_thread() == MPI.THREAD_MULTIPLE  # whether a thread may send while another computes
        self.sent = []  # messages in flight: the request and its bytes
        self.sending = threading.Lock()
        self.parent = Hold(self.leads)

    def describe(self):
        version = MPI.Get_library_version().split(",")[0].strip("\0 ")
        return f"MPI ({version}), {self.size} ranks on {', '.join(dict.fromkeys(self.hosts))}"

    def gather(self, data):
        with self.waits("gather"):
            self.meet()
            return self.comm.allgather(data)

    def share(self, data):
        with self.waits("share"):
            self.meet()
            return self.comm.bcast(data)

    def meet(self):
        """Return when every rank has arrived. MPI's own waits occupy a core that a working rank may need: after `BUSY`
        seconds this one polls at growing intervals."""
        request, begun = self.comm.Ibarrier(), time.monotonic()
        while not request.Test():
            waited = time.monotonic() - begun
            if waited > BUSY:
                time.sleep(min(SHARE * waited, LONGEST))

    def abort(self, code):
        end_later(self.hosts)
        if self.parent.held:  # a stopped daemon does not react to an abort
            os._exit(code)
        self.exit_within(LAST_WORDS, code)
        MPI.COMM_WORLD.Abort(code)

    def exit_within(self, seconds, code):
        last = threading.Timer(seconds, os._exit, (code,))
        last.daemon = True
        last.start()

    def signalled(self, number, wanted):
        self.parent.notes(number, wanted)

    def falls(self):
        self.parent.release()

    def close(self, code):
        """MPI_Finalize would wait for the parent, which continues only when this process has ended."""
        if self.parent.held:
            self.exit_within(DELIVERY * 10, code)
            self.wait()
            end = time.monotonic() + DELIVERY
            while time.monotonic() < end:  # the other ranks' messages of `wait` are in flight
                self.side.Iprobe()
            os._exit(code)

    @property
    def warning(self):
        reason = why_not_held()
        return reason and f"a signal to mpiexec kills all ranks before they save ({reason}); SIGUSR1 does not"

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

    def comes_to(self, collective):
        with self.waits(collective):
            self.meet()

    # --- arrays, on the host -------------------------------------------------------------------------------------

    def all_reduce(self, flat):
        """Replace flat (n,), contiguous, by its sum over ranks."""
        self.comes_to("all_reduce")
        for piece in pieces(flat):
            with self.waits("all_reduce"):
                self.comm.Allreduce(MPI.IN_PLACE, piece)

    def reduce_scatter(self, flat, part, cuts):
        """Write into part (m,) the sum over ranks of this rank's slice of flat (n,). `part` may be that slice."""
        self.comes_to("reduce_scatter")
        for owner in range(self.size):
            inside = flat[cuts[owner] : cuts[owner + 1]]
            results = pieces(part) if owner == self.rank else [None] * len(pieces(inside))
            for piece, result in zip(pieces(inside), results, strict=True):
                same = result is not None and np.shares_memory(piece, result)
                with self.waits("reduce_scatter"):
                    self.comm.Reduce(MPI.IN_PLACE if same else piece, result, root=owner)

    def all_gather(self, part, flat, cuts):
        """Write the parts (m,) of all ranks into their slices of flat (n,)."""
        own = flat[cuts[self.rank] : cuts[self.rank + 1]]
        if not np.shares_memory(own, part):
            own[...] = part
        self.comes_to("all_gather")
        for owner in range(self.size):
            for piece in pieces(flat[cuts[owner] : cuts[owner + 1]]):
                with self.waits("all_gather"):
                    self.comm.Bcast(piece.view(np.uint8), root=owner)


def pieces(flat):
    """A flat array as views of at most PIECE bytes."""
    step = PIECE // flat.itemsize
    return [flat[at : at + step] for at in range(0, len(flat), step)]
