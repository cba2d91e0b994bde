"""The collective ops on the cpu, by MPI."""

from functools import partial

from core import Variant


class _Mpi(Variant):
    name, device = "mpi", "cpu"
    dtypes = ("f32", "f64")

    def why_not(self, t):
        return None if t.ranks.engine == "mpi" else "the ranks of this run are not joined by MPI"


class AllReduceMpi(_Mpi):
    """In pieces, each summed on all ranks at once."""

    op = "all_reduce"

    def forward(self, t, launch):
        launch.call(partial(t.ranks.all_reduce, t.flat))


class ReduceScatterMpi(_Mpi):
    """Each slice in pieces, summed towards its owner."""

    op = "reduce_scatter"

    def forward(self, t, launch):
        launch.call(partial(t.ranks.reduce_scatter, t.flat, t.part, t.cuts or t.ranks.cuts(t.n)))


class AllGatherMpi(_Mpi):
    """Each slice in pieces, sent by its owner."""

    op = "all_gather"

    def forward(self, t, launch):
        launch.call(partial(t.ranks.all_gather, t.part, t.flat, t.cuts or t.ranks.cuts(t.n)))
