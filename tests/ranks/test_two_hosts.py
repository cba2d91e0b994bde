"""A run of a rank on each of two hosts, over a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mpi_runs import NEEDS_MPI, commands_on, finished, read_metrics, small_config
from two_hosts import two_hosts, why_not

pytestmark = [NEEDS_MPI, pytest.mark.skipif(bool(why_not()), reason=why_not() or "two hosts")]


def test_two_hosts_have_the_losses_of_two_ranks_on_one_bit_for_bit(tmp_path: Path) -> None:
    command = ["train", small_config(tmp_path, steps=6, val_every=3), "--device", "cpu", "--out"]
    out = tmp_path / "hosts"
    with two_hosts(tmp_path) as hosts:
        done = finished([*hosts.mpiexec(), sys.executable, "-m", "core", *command, str(out)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    commands_on(2, [*command, str(tmp_path / "here")], folder=tmp_path)
    theirs = read_metrics(tmp_path / "here")
    ours = read_metrics(out)
    assert len(ours) == len(theirs) == 6
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "norm", "val_loss"):
            assert one.get(name) == other.get(name), name
