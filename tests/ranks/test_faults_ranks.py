"""A rank that dies, hangs or errs ends the run on all ranks, and one line says which and what waits for it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from faulty_runs import PLUGIN, run_faulty
from mpi_runs import NEEDS_MPI, train_here

from core.train.run import read_lines

pytestmark = NEEDS_MPI
HOST = socket.gethostname()
WAITING = "reduce_scatter of step 4"
STEPS = 8


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("raise", 3, f"rank 1 of 2 on {HOST}: core: error:"),
        ("exit", 70, f"rank 1 of 2 on {HOST}: core: error: a call of sys.exit(0)"),
        ("kill", 137, "has ended without a word"),
        ("stop", 4, "silent for"),
        ("hang", 4, "it is in forward and backward of step 4"),
    ],
)
def test_a_rank_that_dies_ends_all_and_is_named(tmp_path: Path, fault: str, code: int, said: str) -> None:
    ended = run_faulty(tmp_path, fault)
    assert ended.code == code, ended.errors
    assert said in ended.errors
    line = ended.line(WAITING)
    assert f"rank 1 on {HOST}" in line
    assert "1 of 2 ranks" in line
    assert "SIGTERM" not in ended.errors
    assert (tmp_path / "run" / "LATEST").read_text().strip().endswith("2")
    if fault == "kill":
        run = ["--device", "cpu", "--plugin", str(PLUGIN), "--out", str(tmp_path / "run"), "--resume"]
        train_here(str(tmp_path / "small.toml"), *run)  # on one rank
        assert [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == list(range(1, STEPS + 1))


def test_a_rank_that_never_joins_is_named(tmp_path: Path) -> None:
    ended = run_faulty(tmp_path, "late")
    assert ended.code == 4
    line = ended.line("waited 5 s for all 2 ranks to join the run: rank 1 (process ")
    assert line.endswith(", stopped) did not come")


def test_a_first_rank_that_is_stopped_is_noticed_by_the_others(tmp_path: Path) -> None:
    ended = run_faulty(tmp_path, "stop", on=0)
    assert ended.code == 4, ended.errors
    assert f"rank 1 of 2 on {HOST}: core: error: rank 0 on {HOST} keeps 1 of 2 ranks waiting" in ended.line(
        "silent for"
    )


@pytest.mark.parametrize(
    ("fault", "name", "code"), [("term", "SIGTERM", 143), ("launcher", "SIGUSR1", 138), ("mpiexec", "SIGTERM", 1)]
)
def test_a_signal_to_one_rank_or_to_the_launcher_ends_all_after_the_same_step(
    tmp_path: Path, fault: str, name: str, code: int
) -> None:
    ended = run_faulty(tmp_path, fault)
    assert ended.code == code
    assert f"ended by {name} after step 4/8: the checkpoint of step 4 is saved" in ended.out
    assert ended.errors.count("core:") == (fault == "mpiexec"), ended.errors  # mpiexec is stopped
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("step_*")) == [
        "step_00000002",
        "step_00000004",
    ]


def test_a_nan_on_one_rank_updates_nothing_and_its_batch_is_kept(tmp_path: Path) -> None:
    ended = run_faulty(tmp_path, "nan")
    assert ended.code == 5
    line = ended.line("core: error:")
    assert line.startswith("core: error: step 4/8")
    assert f"rank 1 on {HOST}: node h.0.act (gelu.faulty)" in line
    assert "machine" not in ended.errors
    crash = tmp_path / "run" / "crash-step_00000004"
    cause = json.loads((crash / "crash.json").read_text())["cause"]
    assert (cause["rank"], cause["host"], cause["node"], cause["op"]) == (1, HOST, "h.0.act", "gelu")


@pytest.mark.parametrize("setting", ["train.stepz=3", "train.tokens_per_step=33"])
def test_an_error_that_all_ranks_meet_is_printed_once(tmp_path: Path, setting: str) -> None:
    ended = run_faulty(tmp_path, "", "--set", setting)
    assert ended.code == 2
    assert ended.errors.count("core:") == 1
    assert "rank 1 of" not in ended.errors


def test_a_spike_on_one_rank_is_skipped_by_all(tmp_path: Path) -> None:
    detect = [part for setting in ("action=skip", "window=2", "loss_z=5") for part in ("--set", f"detect.{setting}")]
    ended = run_faulty(tmp_path, "spike", *detect)
    assert ended.code == 0, ended.errors
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert lines[3]["skipped"]
    assert not lines[-1].get("skipped")  # and the replicas are alike at the last checkpoint


def test_ranks_with_other_data_do_not_train(tmp_path: Path) -> None:
    ended = run_faulty(tmp_path, "", apart=True)
    assert ended.code == 2
    line = ended.line("core: error:")
    assert "the ranks of a run must agree on the data's train.files" in line
    assert f"rank 0 on {HOST} has" in line
    assert f"rank 1 on {HOST} has" in line
    assert not (tmp_path / "run").exists()
