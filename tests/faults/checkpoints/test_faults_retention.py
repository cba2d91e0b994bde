"""Pointers, retention and links: the newest valid checkpoint is found, and the only valid one is never removed."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from checkpoint_runs import assert_is, assert_same, contents, damage, log, posix_only, train

from core import checkpoint, files
from core.cli import run as core_command
from core.errors import UsageError
from core.train.run import Run


@pytest.mark.parametrize("said", [None, "step_00000099\n", "step_00000004\n"], ids=["missing", "dangling", "stale"])
def test_latest_is_repaired_and_the_folders_decide(here: Path, whole: Path, said: str | None) -> None:
    shutil.copytree(whole, here / "run")
    pointer = here / "run/LATEST"
    pointer.unlink() if said is None else pointer.write_text(said)
    assert train("train.steps=13", out=Path("run"), resume=True, stop_after=13) == 143
    text = log(here / "run")
    assert f"LATEST named {(said or 'nothing').strip()}; now it names step_00000012" in text
    assert "resumed from run/checkpoints/step_00000012" in text
    assert pointer.read_text() == "step_00000013\n"


def test_retention_never_removes_the_only_valid_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (2, 3, 4, 5):
        checkpoint.save(folder, step, contents(step))
    damage(folder / "step_00000004" / checkpoint.OPTIMIZER, "cut short")
    assert checkpoint.retain(folder, 5, keep_last=2, keep_every=0) == []
    assert checkpoint.steps(folder) == [5, 3]  # a damaged one is none of the two
    damage(folder / "step_00000005" / checkpoint.MODEL, "missing")
    assert checkpoint.retain(folder, 5, keep_last=1, keep_every=0) == []
    assert checkpoint.steps(folder) == [5, 3]
    with pytest.warns(checkpoint.CheckpointWarning):
        assert_is(checkpoint.find(folder), 3)

    def refuse(call: str, path: Path) -> None:
        if call == "unlink":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    checkpoint.save(folder, 6, contents(6))
    monkeypatch.setattr(files, "POINT", refuse)  # an old one that cannot be removed is said, and ends nothing
    (problem, *_) = checkpoint.retain(folder, 6, keep_last=1, keep_every=0)
    assert problem.endswith("cannot be removed: Permission denied")
    assert_is(checkpoint.find(folder), 6)


@posix_only
def test_a_runs_folder_may_be_a_link_and_what_a_checkpoints_link_leads_to_is_never_removed(
    here: Path, whole: Path
) -> None:
    """A run on another disk: the link stands for its folder, which the command line named. In the folder, none does."""
    other_disk = here / "other_disk"
    with Run(other_disk / "run"):
        pass
    (here / "run").symlink_to(other_disk / "run")
    assert train(out=Path("run"), stop_after=4, resume=True) == 143
    shutil.move(other_disk / "run/checkpoints/step_00000004", other_disk / "moved")
    (other_disk / "run/checkpoints/step_00000004").symlink_to(other_disk / "moved")
    assert train("train.keep_last=1", out=Path("run"), resume=True) == 0
    assert "resumed from run/checkpoints/step_00000003" in log(here / "run")
    assert_same(here / "run", whole)
    assert checkpoint.steps(other_disk / "run/checkpoints") == [12, 3]  # the last and the best
    assert checkpoint.load(other_disk / "moved").step == 4
    assert not list((other_disk / "run/checkpoints").glob(".*"))


def linked(run: Path, disk: Path) -> Path:
    """A run's checkpoints on another disk, as one moves them there."""
    shutil.move(run / "checkpoints", disk)
    (run / "checkpoints").symlink_to(disk)
    return disk


@posix_only
def test_checkpoints_on_another_disk_are_the_runs_once_their_owner_is(
    here: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(out=Path("run"), stop_after=4) == 143
    disk = linked(here / "run", here / "disk")
    again = ["train", "small.toml", "--device", "cpu", "--out", "run", "--resume", "--quiet"]
    before = sorted(disk.rglob("*"))
    for owner, says in ((None, "which has no file OWNER"), ("/elsewhere/run\n", 'whose OWNER is "/elsewhere/run"')):
        if owner:
            (disk / "OWNER").write_text(owner)
        assert core_command(again) == 2
        said = capsys.readouterr().err
        assert f"run/checkpoints: a symbolic link to {disk}, {says}; nothing was changed" in said
        assert f"echo {here.resolve()}/run > {disk}/OWNER" in said
        assert sorted(p for p in disk.rglob("*") if p.name != "OWNER") == before
    (disk / "OWNER").write_text(f"{here.resolve()}/run\n")
    assert core_command(again) == 0
    assert_same(here / "run", whole)
    assert checkpoint.steps(disk) == checkpoint.steps(whole / "checkpoints")
    shutil.copytree(here / "run", here / "copy", symlinks=True)  # its link leads to the same folder
    assert core_command([*again[:5], "copy", "--resume"]) == 2


@posix_only
def test_a_run_may_begin_with_a_link_to_an_empty_folder_and_owns_it(
    here: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in ("run", "other"):
        (here / run).mkdir()
        (here / run / "checkpoints").symlink_to(here / "disk")
    assert core_command(["train", "small.toml", "--device", "cpu", "--out", "run"]) == 2
    assert "run/checkpoints: a symbolic link that leads to no folder" in capsys.readouterr().err
    (here / "disk").mkdir()
    assert train(out=Path("run")) == 0
    assert_same(here / "run", whole)
    assert (here / "disk/OWNER").read_text() == f"{here.resolve()}/run\n"
    with pytest.raises(UsageError, match="other/checkpoints: a symbolic link to .*/disk, whose OWNER is .*/run"):
        train(out=Path("other"))
