"""Commands on several ranks: runs have the numbers of a run on one, and resume on as many ranks and on others; a bench
compares the ranks with one; `core doctor` shows them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
from commands_on_ranks import copy_again
from mpi_runs import NEEDS_MPI, commands_on, read_metrics, small_config, train_here

import core
from core import checkpoint

pytestmark = NEEDS_MPI
NEAR = 1e-6
FILES = ["model.safetensors", "optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"]


def near(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "norm", "val_loss"):
            assert (name in one) == (name in other)
            if name in one:
                assert one[name] == pytest.approx(other[name], rel=NEAR), (name, one["step"])
        assert one["tokens"] == other["tokens"]
        assert one.get("val_tokens") == other.get("val_tokens")


BENCH = ("dims.B=2", "dims.T=16", "dims.S=16", "dims.C=32", "dims.H=2", "dims.L=1", "train.tokens_per_step=128")


def words(config: str, out: Path, *more: str, device: str = "cpu") -> list[str]:
    """Of a command that trains."""
    return [config, "--device", device, "--out", str(out), *more]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """(folder, output of a bench, output of doctor) of two ranks that are started once. In the folder are the runs
    "sim", in the simulator; "whole", sharded, and from its middle "again", and "again-unsharded". Their configs are in
    "a" and "b"."""
    folder = tmp_path_factory.mktemp("two")
    for name in "ab":
        (folder / name).mkdir()
    of_sim = small_config(folder / "a", steps=3, tokens_per_step=64, val_every=3, val_tokens=64)
    config = small_config(folder / "b", 112, steps=4, val_every=0, checkpoint_every=2)  # slices begin at chunks
    whole, again, unsharded = (folder / name for name in ("whole", "again", "again-unsharded"))
    sets = [part for setting in BENCH for part in ("--set", setting)]
    *_, bench, doctor = commands_on(
        2,
        ["train", *words(of_sim, folder / "sim", device="sim")],
        ["train", *words(config, whole)],
        ["again", str(whole), str(again)],
        ["train", *words(config, again, "--resume")],
        ["again", str(whole), str(unsharded)],
        ["train", *words(config, unsharded, "--resume", "--set", "train.shard=false")],
        ["bench", "configs/tiny.toml", "--device", "cpu", "--steps", "2", "--json", *sets],
        ["doctor"],
        folder=folder,
    )
    return folder, bench, doctor


@pytest.fixture
def two_ranks(started: tuple[Path, str, str]) -> Path:
    return started[0]


def test_a_bench_on_two_ranks_compares_them_with_one(started: tuple[Path, str, str]) -> None:
    report = json.loads(started[1])
    ranks = report["ranks"]
    assert ranks["ranks"] == 2 and report["micro_steps"] == 2
    assert ranks["communication_ms"] > 0 and 0 <= ranks["hidden"] <= 1
    assert abs(report["tokens_per_s"] * report["ms_median"] / 1e3 - 128) < 1e-6


def test_doctor_shows_the_ranks_that_a_launcher_started_once(started: tuple[Path, str, str]) -> None:
    (line,) = [line for line in started[2].splitlines() if line.startswith("ranks ") and "2 ranks on" in line]
    assert socket.gethostname() in line
    assert "mpiexec (Open MPI)" in line
    assert started[2].count("ranks by mpi") == 1


def test_losses_norms_and_validation_are_those_of_one_rank_with_dropout(tmp_path: Path) -> None:
    """Of two micro-steps on each of three ranks."""
    config = small_config(tmp_path, tokens_per_step=192, val_tokens=192)
    train_here(*words(config, tmp_path / "one"))
    one = read_metrics(tmp_path / "one")
    assert len(one) == 20 and sum("val_loss" in line for line in one) == 4
    commands_on(3, ["train", *words(config, tmp_path / "three")], folder=tmp_path)
    near(read_metrics(tmp_path / "three"), one)
    assert ", 3 ranks on " in (tmp_path / "three" / "train.log").read_text()


def test_simulators_train_together_through_the_host(two_ranks: Path, tmp_path: Path) -> None:
    train_here(*words(str(two_ranks / "a" / "small.toml"), tmp_path / "one", device="sim"))
    near(read_metrics(two_ranks / "sim"), read_metrics(tmp_path / "one"))


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run)]


@pytest.mark.parametrize(("name", "files"), [("again", 3), ("again-unsharded", 2)])
def test_a_sharded_run_resumes_on_as_many_ranks_bit_for_bit(two_ranks: Path, name: str, files: int) -> None:
    last, found = (checkpoint.load(two_ranks / run / "checkpoints" / "step_00000004") for run in ("whole", name))
    assert sorted(p.name for p in last.path.glob("*.safetensors")) == FILES
    assert losses(two_ranks / name) == losses(two_ranks / "whole")
    assert (found.optimizer.keys(), len(found.files)) == (last.optimizer.keys(), files)
    for ours, theirs in zip(
        (found.parameters, *found.optimizer.values()), (last.parameters, *last.optimizer.values()), strict=True
    ):
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_sharded_run_resumes_on_one_rank_within_rounding_and_commands_read_it(
    two_ranks: Path, tmp_path: Path
) -> None:
    whole = two_ranks / "whole"
    copy_again(str(whole), str(tmp_path / "one"))
    train_here(*words(str(two_ranks / "b" / "small.toml"), tmp_path / "one", "--resume"))
    assert losses(tmp_path / "one") == pytest.approx(losses(whole), rel=NEAR)
    assert len(checkpoint.load(tmp_path / "one" / "checkpoints" / "step_00000004").files) == 2
    model = core.load(str(whole))
    assert np.isfinite(model.logits(np.arange(8)[None])).all()
    assert model.params.keys() == checkpoint.load(whole / "checkpoints" / "step_00000004").parameters.keys()
