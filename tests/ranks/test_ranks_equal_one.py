"""Runs on several ranks have the numbers of a run on one."""

from __future__ import annotations

from pathlib import Path

import pytest
from mpi_runs import NEEDS_MPI, train_on

pytestmark = NEEDS_MPI
NEAR = 1e-6
DROPPING = """
extends = "gpt2_124m"
[block.layer]
drop = { op = "dropout", in = "act", p = 0.2 }
down = { op = "matmul", in = "drop", features = "C" }
"""


def near(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("loss", "norm", "val_loss"):
            assert (name in one) == (name in other)
            if name in one:
                assert one[name] == pytest.approx(other[name], rel=NEAR), (name, one["step"])
        assert one["tokens"] == other["tokens"]
        assert one.get("val_tokens") == other.get("val_tokens")


@pytest.mark.parametrize("ranks", [2, 4])
def test_losses_norms_and_validation_are_those_of_one_rank(tmp_path: Path, ranks: int) -> None:
    settings: tuple[str, ...] = ()
    if ranks == 2:
        (tmp_path / "drop.toml").write_text(DROPPING)
        settings = (f"model={tmp_path / 'drop.toml'}",)
    near(train_on(ranks, tmp_path / "several", *settings), train_on(1, tmp_path / "one", *settings))
    assert f", {ranks} ranks on " in (tmp_path / "several" / "train.log").read_text()


TINY = ("train.steps=3", "train.tokens_per_step=64", "dims.B=1", "dims.T=16", "dims.S=16", "dims.C=32", "dims.H=2",
        "dims.L=1", "train.sample_every=0", "train.val_every=3", "train.val_tokens=64",
        "train.checkpoint_every=0")  # fmt: skip


def test_simulators_train_together_through_the_host(tmp_path: Path) -> None:
    near(*(train_on(n, tmp_path / f"{n}", device="sim", small=TINY) for n in (2, 1)))
