"""When MPI can join the processes of a run."""

from importlib.util import find_spec

from core import DeviceError, RanksKind

INSTALL = "pip install 'corelm[mpi]'"


class Mpi(RanksKind):
    """mpi4py, imported only in processes that an mpiexec started, or srun with PMI: elsewhere MPI_Init may abort."""

    name = "mpi"
    priority = 20

    def why_not(self, launched, device):
        if not launched.mpi:
            return f"{launched.launcher} started no MPI world; mpiexec does, and srun --mpi=pmix"
        return None if find_spec("mpi4py") else f"mpi4py is not installed: {INSTALL}"

    def open(self, launched, device):
        try:
            from .world import MpiRanks

            return MpiRanks(launched.local)
        except (ImportError, RuntimeError, OSError) as error:  # no library, or another one than mpi4py was made for
            raise DeviceError(f"MPI cannot be used: {error}", hint=f"{INSTALL} brings mpi4py and Open MPI") from error

    def describe(self):
        from .installed import launcher, library

        return (
            f"{library() or 'mpi4py finds no MPI library'}; {launcher() or 'no mpiexec'}" if find_spec("mpi4py") else ""
        )

    def problem(self):
        from .installed import launcher, library, mismatch

        if not find_spec("mpi4py"):
            return f"{INSTALL} joins ranks on every device"
        if not library() or not launcher():
            return f"{INSTALL} brings mpi4py and Open MPI with its mpiexec"
        return mismatch(library(), launcher())
