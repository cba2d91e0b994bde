"""`core bench` of a config on two ranks: communication, its hidden share, efficiency; tokens of all ranks."""

from __future__ import annotations

import json
from pathlib import Path

from mpi_runs import NEEDS_MPI, core_on

from core.measure.communication import Communication

SETS = ("dims.B=2", "dims.T=16", "dims.S=16", "dims.C=32", "dims.H=2", "dims.L=1", "train.tokens_per_step=128")


@NEEDS_MPI
def test_a_bench_on_two_ranks_compares_them_with_one(tmp_path: Path) -> None:
    sets = [part for setting in SETS for part in ("--set", setting)]
    command = ("bench", "configs/tiny.toml", "--device", "cpu", "--steps", "2", "--json", *sets)
    done = core_on(2, *command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ranks = report["ranks"]
    assert ranks["ranks"] == 2 and report["micro_steps"] == 2
    assert ranks["communication_ms"] > 0 and 0 <= ranks["hidden"] <= 1
    assert abs(report["tokens_per_s"] * report["ms_median"] / 1e3 - 128) < 1e-6


def test_communication_beyond_the_longer_step_is_hidden() -> None:
    assert Communication(2, alone=1.0, together=1.1, collectives=0.4).hidden == 1 - 0.1000000000000000888 / 0.4
    assert Communication(2, alone=1.0, together=0.9, collectives=0.4).hidden == 1
    assert Communication(2, alone=1.0, together=2.0, collectives=0.4).hidden == 0
    assert Communication(2, alone=1.0, together=2.0, collectives=0.4).efficiency == 0.5
