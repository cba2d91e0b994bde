"""The collective ops on GPUs, by NCCL: calls on the step's own stream, which a CUDA graph holds.

Each call names its algorithm, `t.config["algorithm"]`, which a run records beside its tiles: another one adds in
another order. Rings repeat their bits; NVLink SHARP (`nvls`) does not, so that its variants run only where a config
names them.
"""

from functools import partial

from core import Variant

from . import library
from .communicator import communicator_of
from .library import SUM, TYPES


class _Nccl(Variant):
    name, device, source, library = "nccl", "cuda", (), "NCCL"
    algorithms = ("ring",)

    def why_not(self, t):
        if t.ranks.size == 1:
            return "this run has one rank"
        collective = self.op.replace("_", "")
        return library.missing() or library.refusal(self.algorithms[0], collective)

    def configs(self, t):
        return [{"algorithm": algorithm} for algorithm in self.algorithms]

    def record(self, t, launch, prepare, *tensors):
        """Record a library's call: prepare(communicator, algorithm, *addresses)."""
        communicator = communicator_of(t.ranks)
        launch.call(partial(prepare, communicator, t.config["algorithm"]), *tensors, watch=communicator.watch)


class AllReduceNccl(_Nccl):
    """One call, in place."""

    op = "all_reduce"
    algorithms = ("ring", "tree")

    def forward(self, t, launch):
        kind = TYPES[t.flat.dtype]

        def prepare(communicator, algorithm, flat):
            return communicator.start("ncclAllReduce", algorithm, flat, flat, t.n, kind, SUM)

        self.record(t, launch, prepare, t.flat)


class ReduceScatterNccl(_Nccl):
    """One call for equal slices; for others, one towards each owner, in a group."""

    op = "reduce_scatter"

    def forward(self, t, launch):
        cuts, kind, size = t.cuts or t.ranks.cuts(t.n), TYPES[t.flat.dtype], t.flat.itemsize

        def prepare(communicator, algorithm, flat, part):
            if (each := equal(cuts)) is not None:
                return communicator.start("ncclReduceScatter", algorithm, flat, part, each, kind, SUM)
            return grouped(
                communicator.start(
                    "ncclReduce", algorithm, flat + start * size,
                    part if owner == communicator.rank else flat + start * size, stop - start, kind, SUM, owner,
                )
                for owner, start, stop in slices(cuts)
            )  # fmt: skip

        self.record(t, launch, prepare, t.flat, t.part)


class AllGatherNccl(_Nccl):
    """One call for equal slices; for others, one from each owner, in a group."""

    op = "all_gather"

    def forward(self, t, launch):
        cuts, kind, size = t.cuts or t.ranks.cuts(t.n), TYPES[t.flat.dtype], t.flat.itemsize

        def prepare(communicator, algorithm, part, flat):
            if (each := equal(cuts)) is not None:
                return communicator.start("ncclAllGather", algorithm, part, flat, each, kind)
            return grouped(
                communicator.start(
                    "ncclBroadcast", algorithm, part if owner == communicator.rank else flat + start * size,
                    flat + start * size, stop - start, kind, owner,
                )
                for owner, start, stop in slices(cuts)
            )  # fmt: skip

        self.record(t, launch, prepare, t.part, t.flat)


class AllReduceNvls(AllReduceNccl):
    """Added in the NVLink switch, in an order that changes from run to run."""

    name, repeatable = "nccl_nvls", False
    algorithms = ("nvls",)


class ReduceScatterNvls(ReduceScatterNccl):
    """Added in the NVLink switch; equal slices only."""

    name, repeatable = "nccl_nvls", False
    algorithms = ("nvls",)

    def why_not(self, t):
        uneven = equal(t.cuts or t.ranks.cuts(t.n)) is None
        return super().why_not(t) or ("NVLS has no sum towards one rank, and these slices differ" if uneven else None)


def equal(cuts):
    """Elements of each slice where all are the same; else None."""
    sizes = {stop - start for start, stop in zip(cuts, cuts[1:], strict=False)}
    return sizes.pop() if len(sizes) == 1 else None


def slices(cuts):
    """(owner, start, stop) of the slices that are not empty."""
    bounds = zip(cuts, cuts[1:], strict=False)
    return [(owner, start, stop) for owner, (start, stop) in enumerate(bounds) if start < stop]


def grouped(starts):
    """start(stream) of several calls as one."""
    calls = list(starts)

    def start(stream):
        library.call("ncclGroupStart")
        for each in calls:
            each(stream)
        library.call("ncclGroupEnd")

    return start
