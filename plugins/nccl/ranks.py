"""The group of ranks that NCCL alone joins: numbers and bytes go through a small buffer on the GPU."""

import os
import socket

import numpy as np

from core import Ranks, Tensors

from .beats import Beats
from .collectives import AllGatherNccl
from .communicator import communicator_of, unique_id
from .library import describe

LENGTH = 8  # bytes of a number


class NcclRanks(Ranks):
    """All processes that torchrun or srun started, each with the GPU of its local rank."""

    engine, reliable = "nccl", False

    def __init__(self, launched, device):
        """device: the rank's, open; its context is that of the engine's device too."""
        self.rank, self.size, self.local = launched.rank, launched.size, launched.local
        self.device, self.buffer = device, None
        self.communicator = communicator_of(self)
        self.communicator.meet(unique_id())
        self.hosts = [host.decode(errors="replace") for host in self.gather(socket.gethostname().encode())]
        self.side = Beats(self, os.environ["NCCL_COMM_ID"])

    def describe(self):
        return f"{describe()}, {self.size} ranks on {', '.join(dict.fromkeys(self.hosts))}"

    def gather(self, data):
        with self.waits("gather"):
            return self.gathered(data)

    def gathered(self, data):
        lengths = [int.from_bytes(part, "little") for part in self.exchange(len(data).to_bytes(LENGTH, "little"))]
        parts = self.exchange(data.ljust(max(lengths), b"\0")) if any(lengths) else [b""] * self.size
        return [part[:length] for part, length in zip(parts, lengths, strict=True)]

    def exchange(self, data):
        """The data of all ranks, of equal length, in the order of ranks."""
        device, each = self.device, len(data)
        if self.buffer is None or self.buffer.size < each * self.size:
            self.buffer = device.tensor(device.allocate(each * self.size), 0, (each * self.size,), "u8")
        flat = self.buffer[: each * self.size]
        own = flat[each * self.rank : each * (self.rank + 1)]
        device.upload(own, np.frombuffer(data, np.uint8))
        t = Tensors(part=own, flat=flat, cuts=[], n=flat.size, m=each, ranks=self, config={"algorithm": "ring"})
        with self.communicator.patiently():
            device.run(device.record(AllGatherNccl(), "forward", t, None, None))
            return [part.tobytes() for part in np.split(device.download(flat), self.size)]

    def send(self, rank, data):
        self.side.send(rank, data)

    def received(self):
        return self.side.received()

    def abort(self, code):
        self.communicator.abort()
        os._exit(code)
