"""health.jsonl: a kill within a line, a full disk, a link in its place."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_run
from checkpoint_runs import curve, log, started_quickly, train

from core import checkpoint, files
from core.errors import CheckpointError
from core.train.health_file import read_health
from core.train.run import Run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    small_run.write(tmp_path, small_run.unwatched(train={"health_every": 1, "checkpoint_every": 2}))
    monkeypatch.chdir(tmp_path)
    with started_quickly():
        yield tmp_path


def same(a: Path, b: Path) -> bool:
    ours, theirs = read_health(a), read_health(b)
    return [r.step for r in ours] == [r.step for r in theirs] == list(range(1, 7)) and all(
        np.array_equal(x.values[name], y.values[name], equal_nan=True)
        for x, y in zip(ours, theirs, strict=True)
        for name in x.values
    )


def test_a_torn_line_and_later_steps_of_the_statistics_are_dropped_and_written_again(here: Path) -> None:
    train(out=here / "whole")
    train(out=here / "b", stop_after=4)
    lines = (here / "whole/health.jsonl").read_text().splitlines(keepends=True)
    (here / "b/health.jsonl").write_text("".join(lines[:5]) + lines[5][:100])
    assert [record.step for record in read_health(here / "b")] == [1, 2, 3, 4, 5]
    train(out=here / "b", resume=True)
    assert same(here / "b", here / "whole")


@pytest.mark.parametrize("middle, replaced", [("", False), ('{"step": 1, "los\n', True)], ids=["whole", "damaged"])
def test_a_resume_cuts_later_lines_off_and_writes_a_file_again_only_around_damage(
    tmp_path: Path, middle: str, replaced: bool
) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second, third = (f'{{"step": {step}, "loss": 2.50}}\n' for step in (1, 2, 3))
    path.write_text(first + middle + second + third + third[:9])
    before = path.stat().st_ino
    run = Run(tmp_path)
    run.rewind(2)
    run.metrics({"step": 3})
    run.close()
    assert path.read_text() == first + second + '{"step": 3}\n'
    assert (path.stat().st_ino != before) == replaced


def test_a_disk_that_keeps_later_lines_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')

    def refuse(call: str, path: Path) -> None:
        if call == "cut":
            raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(files, "POINT", refuse)
    with pytest.raises(CheckpointError, match="metrics.jsonl: cannot be written: Input/output error; no step"):
        Run(tmp_path).rewind(1)


def test_a_full_disk_costs_no_line_of_statistics_once_there_is_room_and_no_step(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(out=here / "whole")
    calls: list[Path] = []

    def full(call: str, path: Path) -> None:
        if call == "append" and path.name == "health.jsonl":
            calls.append(path)
            if 2 <= len(calls) <= 4:
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "POINT", full)
    assert train(out=here / "a") == 0
    said = log(here / "a")
    assert "warning: health.jsonl: No space left on device; its lines are kept until there is room" in said
    assert "health.jsonl: all lines are written" in said
    assert same(here / "a", here / "whole") and curve(here / "a") == curve(here / "whole")


def test_a_link_in_the_place_of_the_statistics_is_not_followed(here: Path) -> None:
    train(out=here / "a", stop_after=2)
    (here / "mine").write_text("mine")
    (here / "a/health.jsonl").unlink()
    (here / "a/health.jsonl").symlink_to(here / "mine")
    with pytest.raises(CheckpointError, match=r"health\.jsonl: cannot be written"):
        train(out=here / "a", resume=True)
    assert (here / "mine").read_text() == "mine" and checkpoint.find(here / "a").step == 2
