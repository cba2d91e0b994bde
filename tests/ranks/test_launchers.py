"""Processes that a launcher started and that no engine joins train nothing; what `core doctor` says of launchers."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from faulty_runs import PLUGIN, config_in, ended
from mpi_runs import NEEDS_MPI, environment

from core import cli
from core.errors import DeviceError
from core.loader import load_registry

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}


@NEEDS_MPI
def test_a_world_of_one_process_does_not_train(tmp_path: Path) -> None:
    """As rank 1 of two: rank 0 is a process like it."""
    out = ["--plugin", str(PLUGIN), "--out", str(tmp_path / "run")]
    says = {f"OMPI_COMM_WORLD_{name}": value for name, value in (("RANK", "1"), ("SIZE", "2"), ("LOCAL_RANK", "1"))}
    command = [sys.executable, "-m", "core", "train", str(config_in(tmp_path)), "--device", "cpu", *out]
    done = ended(command, {**environment(tmp_path), **says})
    assert done.code == 4
    assert done.errors.startswith(f"rank 1 of 2 on {socket.gethostname()}: core: error:")
    assert "started this process as rank 1 of 2, and the library of mpi takes it for rank 0 of 1" in done.errors
    assert not (tmp_path / "run").exists()


def test_torchrun_on_the_cpu_is_refused_and_names_mpiexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    words = ["train", str(config_in(tmp_path)), "--device", "cpu", "--plugin", str(PLUGIN)]
    with pytest.raises(DeviceError) as refused:
        cli.core.main([*words, "--out", str(tmp_path / "run")], standalone_mode=False)
    assert "torchrun started 2 ranks for a run on the cpu" in refused.value.message
    assert "mpiexec -n 2" in refused.value.hint and refused.value.exit_code == 4
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
