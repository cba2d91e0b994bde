"""A communicator of NCCL for the ranks of a run: made when it is first needed, watched while the host waits."""

import ctypes
import threading
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from core import DeviceError

from .library import IN_PROGRESS, INT, INVALID_USAGE, SUCCESS, UniqueId, call, config_of, failure, load, name_algorithm

SOON = 0.5  # seconds of a wait that the other ranks need not hear of
MEETING = 300.0  # seconds for all ranks to come
LIMIT = 60.0  # seconds in a step's collectives, where the ranks have no [train] rank_timeout
HELD = WeakKeyDictionary()  # ranks -> their communicator


def communicator_of(ranks):
    """The one communicator of a group of ranks; not yet connected."""
    if ranks not in HELD:
        HELD[ranks] = Communicator(ranks)
    return HELD[ranks]


class Communicator:
    """handle: NCCL's, None before `connect`. patient: whether the others may take any time."""

    def __init__(self, ranks):
        self.rank, self.size = ranks.rank, ranks.size
        self.exchange = ranks  # by which the ranks meet, where an engine joined them
        self.handle, self.patient = None, False

    @property
    def limit(self):
        """Seconds that a step's collectives may take: [train] rank_timeout."""
        return getattr(self.exchange, "limit", LIMIT)

    def connect(self):
        """Meet the other ranks: all of them call this. Uses the CUDA context of this thread."""
        if self.handle is not None:
            return
        check_gpus(self.exchange)
        data = self.exchange.share(bytes(unique_id()) if self.exchange.leads else b"")
        self.meet(UniqueId.from_buffer_copy(data))

    def meet(self, identity):
        """Make the communicator, in a thread, since a rank that does not come would hold this one for ever."""
        from cuda.bindings import driver

        name_algorithm()
        handle, results = ctypes.c_void_p(), []
        context = driver.cuCtxGetCurrent()[1]

        def work():
            driver.cuCtxSetCurrent(context)
            results.append(load()[0].ncclCommInitRank(ctypes.byref(handle), self.size, identity, self.rank))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(MEETING)
        if not results:
            raise DeviceError(
                f"rank {self.rank} of {self.size} waited {MEETING:.0f} s for the other ranks to join NCCL",
                hint="NCCL_DEBUG=INFO shows the addresses; NCCL_SOCKET_IFNAME chooses the network interface",
            )
        if results[0] != SUCCESS:
            error = failure(results[0], f"rank {self.rank} of {self.size} joining the others")
            shared = f"each rank needs a GPU of its own; {error.hint}"
            raise DeviceError(error.message, hint=shared if results[0] == INVALID_USAGE else error.hint)
        self.handle = handle

    def start(self, name, algorithm, *arguments):
        """start(stream) for a collective with these arguments before its communicator."""
        self.connect()
        config = config_of(algorithm)
        function, further = (name, ()) if config is None else (f"{name}Config", (ctypes.byref(config),))

        def start(stream):
            call(function, *arguments, self.handle, stream, *further)

        start.kept = config
        return start

    def watch(self, seconds):
        """Raises DeviceError where a peer is gone, or where the collectives have taken longer than the limit."""
        if not self.patient:
            self.exchange.polls("the collectives on the GPU" if seconds > SOON else "", seconds)
        error = INT()
        call("ncclCommGetAsyncError", self.handle, ctypes.byref(error))
        if error.value not in (SUCCESS, IN_PROGRESS):
            raise failure(error.value, f"rank {self.rank} of {self.size} waits for the others' part of a collective")
        if seconds > self.limit and not self.patient:
            raise DeviceError(
                f"rank {self.rank} of {self.size} has waited {seconds:.0f} s for its GPU, which waits for other ranks",
                hint="[train] rank_timeout is the limit; NCCL_DEBUG=INFO in the environment makes NCCL print more",
            )

    @contextmanager
    def patiently(self):
        """The others may take any time: they save, sample or compile."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False

    def abort(self):
        """End the kernels that wait for other ranks on the GPU."""
        if self.handle is not None:
            load()[0].ncclCommAbort(self.handle)


def unique_id():
    """A new meeting place; with NCCL_COMM_ID in the environment, the one that it names."""
    identity = UniqueId()
    call("ncclGetUniqueId", ctypes.byref(identity))
    return identity


def check_gpus(ranks):
    """Raises DeviceError where two ranks share a GPU: NCCL needs one for each."""
    import socket

    from cuda.bindings import driver

    uuid = bytes(driver.cuDeviceGetUuid(driver.cuCtxGetDevice()[1])[1].bytes)
    places = ranks.gather(socket.gethostname().encode() + b" " + uuid)
    for rank, place in enumerate(places):
        if (first := places.index(place)) != rank:
            host = place.partition(b" ")[0].decode(errors="replace")
            raise DeviceError(
                f"ranks {first} and {rank} share one GPU on {host}; NCCL needs a GPU for each rank",
                hint="start as many ranks a host as it has GPUs; [ops] all_reduce, reduce_scatter and all_gather = "
                '"host" share one, by MPI',
            )
