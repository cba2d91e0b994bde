"""Disks that fill up while metrics are written, and hooks and ops of plugins that raise."""

from __future__ import annotations

import errno
import math
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from signalled_runs import at_step, curve, last_line, train_whole, trainer

import core.loader
from core import checkpoint, files
from core.cli import run as core_command
from core.train.loop import run_job
from core.train.run import read_lines

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and terminals are POSIX's")


def test_a_full_disk_costs_no_line_of_metrics_or_log_once_there_is_room(here: Path, stack: ExitStack) -> None:
    import resource

    train_whole(stack, "whole")
    made = trainer(stack, "a", "train.checkpoint_every=0")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full() -> None:  # a file may grow no more; Python ignores the signal, and writes fail with EFBIG
        size = (here / "a/metrics.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))

    def room() -> None:
        assert len(read_lines(here / "a/metrics.jsonl")) < 5
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    made.job.hooks = [at_step(2, full), at_step(5, room)]
    try:
        assert run_job(made) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert curve("a") == curve("whole") and len(curve("a")) == 6
    log = (here / "a/train.log").read_text("utf-8")
    assert log.count("warning: metrics.jsonl: File too large; its lines are kept until there is room") == 1
    assert log.count("metrics.jsonl: all lines are written") == 1
    assert [line for line in log.splitlines() if line.startswith("step ")][-1].startswith("step 6/6")


def test_a_disk_that_stays_full_is_told_and_ends_nothing(
    here: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(stack)

    def full(call: str, path: Path) -> None:
        if call == "append" and path.name == "metrics.jsonl" and made.step >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "POINT", full)
    assert run_job(made) == 0
    log = (here / "a/train.log").read_text("utf-8").splitlines()
    assert "warning: the last 3 lines of metrics.jsonl could not be written: No space left on device" in log
    assert [step for step, _, _ in curve("a")] == [1, 2, 3] and checkpoint.find(here / "a").step == 6


def test_a_disk_that_cannot_keep_the_metrics_stops_a_save_with_7(
    here: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(stack)
    sync = os.fsync

    def failing(handle: int) -> None:
        if os.path.realpath(f"/proc/self/fd/{handle}").endswith("metrics.jsonl"):
            raise OSError(errno.EIO, "Input/output error")
        sync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(core.errors.CheckpointError, match="metrics.jsonl: cannot be flushed to the disk: Input/output"):
        run_job(made)
    assert last_line().startswith("  hint: ") and "error: " in (here / "a/train.log").read_text()


def test_hooks_that_raise_are_told_once_and_change_no_bit(here: Path, stack: ExitStack) -> None:
    train_whole(stack, "whole")
    made = trainer(stack, "a", "train.checkpoint_every=0")
    seen: list[tuple[str, int, float]] = []

    def broken(run: Any, step: int, record: dict[str, Any]) -> None:
        record["loss"] = math.nan  # its own copy
        raise ValueError("mine")

    def fine(run: Any, step: int, record: dict[str, Any]) -> None:
        seen.append((run.name, step, record["loss"]))

    made.job.hooks = [broken, fine]
    assert run_job(made) == 0
    assert seen == [("a", step, loss) for step, loss, _ in curve("whole")] and curve("a") == curve("whole")
    assert (here / "a/train.log").read_text().count("raised ValueError: mine (reported once; training continues)") == 1


RAISING = """
from core import Op, Reference

brittle = Op("brittle", inputs={"x": "..."}, outputs={"y": "..."}, uses=("random",), examples=[{"x": (2, 3)}])

class Brittle(Reference):
    op = "brittle"

    def forward(self, t):
        t.y[...] = t.x
        if t.key is not None and t.key[2] == 3:
            t.x["no such"]

    def backward(self, t):
        t.add("dx", t.dy)

def core_ops(): return [brittle]
def core_variants(): return [Brittle]
"""
BRITTLE = """
extends = "gpt2_124m"
[block.layer]
weak = { op = "brittle", in = "act" }
down = { op = "matmul", in = "weak", features = "C" }
"""


def test_an_exception_of_a_plugins_op_is_the_plugins_and_not_a_bug_of_ours(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(here))
    Path("brittle.py").write_text(RAISING)
    Path("model.toml").write_text(BRITTLE)
    command = ["train", "small.toml", "--device", "cpu", "--out", "a", "--plugin", "brittle.py"]
    assert core_command([*command, "--set", "model=model.toml", "--set", "train.check=false"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("core: error: brittle.py (") and ") raised IndexError: " in err and "bug of ours" not in err
    assert "brittle.py:12 in forward" in err and "Traceback" not in err
    assert last_line().startswith("error: IndexError: ") and checkpoint.find(here / "a").step == 2
    assert core.loader.blamed(ValueError()) == ""
