"""A run of a rank on each of two hosts, over a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mpi_runs import NEEDS_MPI, ROOT, environment, read_metrics, small_config, train_on
from two_hosts import two_hosts, why_not

pytestmark = [NEEDS_MPI, pytest.mark.skipif(bool(why_not()), reason=why_not() or "two hosts")]


def test_two_hosts_have_the_losses_of_two_ranks_on_one_bit_for_bit(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    out = tmp_path / "hosts"
    with two_hosts(tmp_path) as hosts:
        command = [*hosts.mpiexec(), sys.executable, "-m", "core", "train", config, "--device", "cpu"]
        done = subprocess.run(
            [*command, "--out", str(out)],
            cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = train_on(2, tmp_path / "here", config)
    ours = read_metrics(out)
    assert len(ours) == len(theirs) == 20
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "norm", "val_loss"):
            assert one.get(name) == other.get(name), name
