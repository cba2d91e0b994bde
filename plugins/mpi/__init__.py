"""MPI (mpi4py) joins the ranks of a run on any device, and sums and gathers tensors on the cpu.

pip install 'corelm[mpi]'
mpiexec -n 2 core train configs/tiny.toml --device cpu
"""

from core import Variant, contents_of

from . import collectives


def core_ranks():
    from . import kind

    return [kind.Mpi]


def core_variants(device):
    through_host = ()
    if device in ("", "cuda"):
        from . import host

        through_host = (host,)
    return contents_of(Variant, collectives, *through_host)
