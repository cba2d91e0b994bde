"""Runs on several ranks have the numbers of a run on one."""

from __future__ import annotations

from pathlib import Path

import pytest
from mpi_runs import NEEDS_MPI, small_config, train_on

pytestmark = NEEDS_MPI
NEAR = 1e-6


def near(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "norm", "val_loss"):
            assert (name in one) == (name in other)
            if name in one:
                assert one[name] == pytest.approx(other[name], rel=NEAR), (name, one["step"])
        assert one["tokens"] == other["tokens"]
        assert one.get("val_tokens") == other.get("val_tokens")


def test_losses_norms_and_validation_are_those_of_one_rank_with_dropout(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    one = train_on(1, tmp_path / "one", config)
    assert len(one) == 20 and sum("val_loss" in line for line in one) == 4
    for ranks in (2, 4):
        near(train_on(ranks, tmp_path / f"{ranks}", config), one)
        assert f", {ranks} ranks on " in (tmp_path / f"{ranks}" / "train.log").read_text()


def test_simulators_train_together_through_the_host(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=3, tokens_per_step=64, val_every=3, val_tokens=64)
    near(*(train_on(n, tmp_path / f"{n}", config, device="sim") for n in (2, 1)))
