"""Launchers: the environment variables that hold a process's rank and the number of ranks.

A launcher is a row of `LAUNCHERS`. No library is imported or called: mpiexec, srun and torchrun put both numbers into
the environment.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import UsageError

MPI_MARKS = ("OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK")  # set where a process may join an MPI world


@dataclass(frozen=True)
class Launcher:
    """A launcher's words for a process. rank, size, local: the variables that hold the rank, the number of ranks and
    the rank among those of one host."""

    name: str
    rank: str
    size: str
    local: str


LAUNCHERS = (
    Launcher("mpiexec (Open MPI)", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    Launcher("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # SLURM_STEP_*: not in a batch script
    Launcher("mpiexec (MPICH)", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    Launcher("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"),
)


@dataclass(frozen=True)
class LaunchedProcess:
    """A process as its launcher describes it. mpi: whether the launcher started an MPI world."""

    launcher: str = ""
    rank: int = 0
    size: int = 1
    local: int = 0
    mpi: bool = False

    @property
    def name(self) -> str:
        """The process as a phrase: "rank 1 of 4 on node7"."""
        return f"rank {self.rank} of {self.size} on {socket.gethostname()}"


def launched(environment: Mapping[str, str] = os.environ) -> LaunchedProcess:
    """The launcher's variables of this process; a size of 1 without a launcher.

    Raises UsageError for variables that hold no ranks.
    """
    for launcher in LAUNCHERS:
        if launcher.rank not in environment or launcher.size not in environment:
            continue
        rank, size = _number(environment, launcher, launcher.rank), _number(environment, launcher, launcher.size)
        local = _number(environment, launcher, launcher.local) if launcher.local in environment else rank
        if not 0 <= rank < size:
            raise UsageError(
                f"{launcher.name}: {launcher.rank}={rank} and {launcher.size}={size}; expected a rank below the size",
                hint="start the run with mpiexec, srun or torchrun, or unset both",
            )
        return LaunchedProcess(launcher.name, rank, size, local, any(mark in environment for mark in MPI_MARKS))
    return LaunchedProcess()


def _number(environment: Mapping[str, str], launcher: Launcher, name: str) -> int:
    text = environment[name]
    if not text.isascii() or not text.isdigit():
        raise UsageError(
            f"{launcher.name}: {name} is {text!r}; expected a whole number",
            hint=f"{name} is set by {launcher.name}; unset it to train with one process",
        )
    return int(text)
