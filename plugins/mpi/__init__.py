"""MPI (mpi4py) joins the ranks of a run on any device, and sums and gathers tensors on the cpu.

pip install 'corelm[mpi]'
mpiexec -n 2 core train configs/tiny.toml --device cpu
"""

from core import Variant, contents_of

from . import collectives, host, kind


def core_ranks():
    return [kind.Mpi]


def core_variants():
    return contents_of(Variant, collectives, host)
