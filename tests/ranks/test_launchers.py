"""Processes that a launcher started and that no engine joins train nothing; what `core doctor` says of launchers."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_runs import PLUGIN, config_in, ended
from mpi_runs import NEEDS_MPI, ROOT, environment, mpiexec

from core import cli
from core.loader import load_registry

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}


def train(folder: Path) -> list[str]:
    """The command of a run on one rank's share of two."""
    out = ["--plugin", str(PLUGIN), "--out", str(folder / "run")]
    return [sys.executable, "-m", "core", "train", str(config_in(folder)), "--device", "cpu", *out]


@NEEDS_MPI
def test_two_worlds_of_one_process_do_not_train(tmp_path: Path) -> None:
    command, ranks = train(tmp_path), []
    for rank in ("0", "1"):
        says = {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": rank}
        ranks.append(
            subprocess.Popen(
                command, cwd=ROOT, env={**environment(tmp_path), **says}, stderr=subprocess.PIPE, text=True
            )
        )
    errors = [process.communicate(timeout=100)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [4, 4]
    for rank, error in enumerate(errors):
        assert f"started this process as rank {rank} of 2, and the library of mpi takes it for rank 0 of 1" in error
    assert errors[1].startswith(f"rank 1 of 2 on {socket.gethostname()}: core: error:")
    assert not (tmp_path / "run").exists()


def test_torchrun_on_the_cpu_is_refused_and_names_mpiexec(tmp_path: Path) -> None:
    done = ended(train(tmp_path), {**environment(tmp_path), **TORCHRUN})
    assert done.code == 4
    assert "torchrun started 2 ranks for a run on the cpu" in done.errors
    assert "mpiexec -n 2" in done.errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_command_that_needs_no_ranks_runs_once(
    rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**TORCHRUN, "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    assert not cli.core.main(["sample", "--help"], standalone_mode=False)
    printed = capsys.readouterr()
    assert ("--prompt" in printed.out) == (rank == "0")
    assert printed.err == ("core: sample runs once, on rank 0 of the 2 that torchrun started\n" if rank == "0" else "")


@NEEDS_MPI
def test_doctor_shows_the_ranks_that_a_launcher_started_once(tmp_path: Path) -> None:
    done = ended([*mpiexec(2), sys.executable, "-m", "core", "doctor"], environment(tmp_path))
    assert done.code == 0, done.errors
    (line,) = [line for line in done.out.splitlines() if line.startswith("ranks ") and "2 ranks on" in line]
    assert socket.gethostname() in line
    assert "mpiexec (Open MPI)" in line
    assert done.out.count("ranks by mpi") == 1


@pytest.mark.parametrize(
    ("library", "launcher", "fits"),
    [
        ("mpi4py 4.1.2 with Open MPI v5.0.11", "mpiexec (Open MPI) 5.0.11", True),
        ("mpi4py 4.1.2 with MPICH Version: 5.0.2", "HYDRA build details:", True),
        ("mpi4py 4.1.2 with Open MPI v5.0.11", "HYDRA build details:", False),
        ("mpi4py 4.1.2 with Intel(R) MPI Library 2021.17", "mpiexec (Open MPI) 5.0.11", False),
        ("", "mpiexec (Open MPI) 5.0.11", True),  # nothing to compare
    ],
)
def test_a_launcher_of_another_mpi_is_a_problem(library: str, launcher: str, fits: bool) -> None:
    module = sys.modules[type(load_registry().ranks["mpi"]).__module__.replace(".kind", "")]
    __import__(f"{module.__name__}.installed")
    assert (sys.modules[f"{module.__name__}.installed"].mismatch(library, launcher) == "") == fits
