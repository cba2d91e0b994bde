"""Beats of ranks that NCCL joined: datagrams beside the collectives, by which a rank that is silent is noticed.

A few bytes a second to rank 0, and one datagram from a rank that ends the run. Where none comes through, no rank
counts as silent, and `[train] rank_timeout` limits each wait for the GPU alone.
"""

import json
import os
import socket
from contextlib import suppress

TOKEN, MOST = 16, 2048  # bytes that a run's datagrams begin with; bytes of a datagram
ANY_PORT = 9  # of an address that is only to be routed to: nothing is sent


class Beats:
    """One socket of this rank, and the addresses of all ranks. All ranks make it together."""

    def __init__(self, ranks, meeting):
        """meeting: host:port where the ranks met, of which the host is rank 0's."""
        self.ranks, host = ranks, meeting.rpartition(":")[0].strip("[]")
        family, _, _, _, target = socket.getaddrinfo(host, ANY_PORT, type=socket.SOCK_DGRAM)[0]
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(("", 0))
        self.socket.setblocking(False)
        with socket.socket(family, socket.SOCK_DGRAM) as routed:
            routed.connect(target)
            own = [routed.getsockname()[0], self.socket.getsockname()[1]]
        self.token = ranks.share(os.urandom(TOKEN))
        self.places = [tuple(json.loads(part)) for part in ranks.gather(json.dumps(own).encode())]
        self.places[0] = (target[0], self.places[0][1])  # as this host reaches it

    def send(self, rank, data):
        with suppress(OSError):  # a full buffer, no route: the next beat may come through
            self.socket.sendto(self.token + data, self.places[rank])

    def received(self):
        messages = []
        with suppress(OSError):  # none left
            while True:
                data = self.socket.recv(MOST)
                if data.startswith(self.token):
                    messages.append(data[TOKEN:])
        return messages
