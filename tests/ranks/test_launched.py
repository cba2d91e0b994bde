"""What launchers say in the environment, and the run that no engine joins."""

from __future__ import annotations

import pytest

from core.errors import DeviceError, UsageError
from core.loader import load_registry
from core.ranks.group import ALONE
from core.ranks.joining import check_world, join
from core.ranks.launched import LaunchedProcess, launched

OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, LaunchedProcess()),
        (OPEN_MPI, LaunchedProcess("mpiexec (Open MPI)", 1, 4, 1, True)),
        (SRUN, LaunchedProcess("srun", 5, 8, 1, False)),
        ({**SRUN, "PMIX_RANK": "5"}, LaunchedProcess("srun", 5, 8, 1, True)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, LaunchedProcess("mpiexec (MPICH)", 0, 2, 0, True)),
        (TORCHRUN, LaunchedProcess("torchrun", 2, 3, 0, False)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, LaunchedProcess()),  # in a batch script, without srun
    ],
)
def test_a_launcher_says_rank_size_and_local_rank(environment: dict[str, str], expected: LaunchedProcess) -> None:
    assert launched(environment) == expected


@pytest.mark.parametrize("wrong", [{"RANK": "one"}, {"RANK": "3"}, {"WORLD_SIZE": "-1"}, {"LOCAL_RANK": ""}])
def test_variables_that_hold_no_rank_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="torchrun"):
        launched({**TORCHRUN, **wrong})


def test_one_process_needs_no_engine() -> None:
    registry = load_registry()
    assert join({}, registry.device("cpu"), LaunchedProcess()) is ALONE


def test_torchrun_on_the_cpu_names_mpiexec() -> None:
    registry = load_registry()
    with pytest.raises(DeviceError, match="torchrun started 3 ranks") as refused:
        join(registry.ranks, registry.device("cpu"), launched(TORCHRUN))
    assert "mpiexec -n 3" in refused.value.hint


def test_a_library_that_knows_another_world_is_refused() -> None:
    with pytest.raises(DeviceError, match="rank 1 of 4.*rank 0 of 1"):
        check_world(ALONE, launched(OPEN_MPI))
