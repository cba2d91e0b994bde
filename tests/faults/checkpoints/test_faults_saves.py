"""Disks that refuse a save: full, read-only, without room, with a limit. Errors are raised at `files.POINT`."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_runs import assert_is, contents, count_calls, in_child, log, posix_only, train

from core import checkpoint, files
from core.cli import run as core_command
from core.errors import CheckpointError, UsageError
from core.outside import WAYS_OUT


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=lambda n: errno.errorcode[n])
def test_a_disk_error_at_any_call_of_a_save_is_said_and_leaves_what_was(
    folder: Path, at_call: Callable[..., None], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    probe = folder.parent.parent / "probe" / "checkpoints"
    probe.mkdir(parents=True)
    for call in range(count_calls(lambda: checkpoint.save(probe, 2, contents(2)), monkeypatch)):
        at_call(call, fail)
        with pytest.raises(CheckpointError, match=os.strerror(number)) as caught:
            checkpoint.save(folder, 2, contents(2))
        assert "earlier checkpoints are unchanged" in caught.value.hint
        assert WAYS_OUT[number] in caught.value.hint
        assert not list(folder.glob(".*"))
        assert_is(checkpoint.load(folder / "step_00000001"), 1)
        shutil.rmtree(folder / "step_00000002", ignore_errors=True)  # only its announcement in LATEST had failed
    at_call(10**6, fail)
    checkpoint.save(folder, 2, contents(2))
    assert_is(checkpoint.find(folder), 2)


@posix_only
def test_a_limit_on_the_size_of_files_is_found_before_step_1_and_survived_later(here: Path) -> None:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        with pytest.raises(CheckpointError, match=r"optimizer.safetensors will have 8\d.\d KiB, and this process may"):
            train(out=Path("run"))
        assert not Path("run").exists()
        Path("run/checkpoints").mkdir(parents=True)
        large = replace(contents(2), parameters={"a": np.ones((200, 100), np.float32)})
        checkpoint.save(Path("run/checkpoints"), 1, contents(1))
        with pytest.raises(CheckpointError, match="File too large") as caught:
            checkpoint.save(Path("run/checkpoints"), 2, large)
        assert "ulimit -f" in caught.value.hint
        assert_is(checkpoint.find(Path("run")), 1)

    assert in_child(limited) == 0


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_full_disk_ends_the_run_or_is_tried_again_as_the_config_says(
    here: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(call: str, path: Path) -> None:
        if call == "write" and "step_00000004" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "POINT", full)
    arguments = ["train", "small.toml", "--device", "cpu", "--set", f"train.save_errors={policy}"]
    arguments += ["--set", "train.checkpoint_every=2", "--set", "train.steps=6", "--out", "run", "--quiet"]
    assert core_command(arguments) == (7 if policy == "stop" else 0)
    assert checkpoint.steps(here / "run/checkpoints") == ([3, 2] if policy == "stop" else [6, 3, 2])
    assert "step_00000004: cannot be saved: No space left on device" in log(here / "run")
    if policy == "continue":
        assert "the newest checkpoint is that of step 3, and training continues" in log(here / "run")


def test_too_little_room_for_the_checkpoints_is_said_before_step_1_and_nothing_is_made(
    here: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(p.stat().st_size for p in checkpoint.find(whole).path.glob("*.safetensors"))
    monkeypatch.setattr(files, "free_bytes", lambda path: int(4.5 * size))  # keep_last = 3, the best, a new one
    with pytest.raises(CheckpointError, match=r"are free, and 5 checkpoints of .* need") as caught:
        train(out=Path("run"))
    assert "lower train.keep_last" in caught.value.hint
    assert not (here / "run").exists()
    shutil.copytree(whole, here / "run")
    monkeypatch.setattr(files, "free_bytes", lambda path: int(1.1 * size))  # four lie there: one more is enough
    assert train("train.steps=20", out=Path("run"), resume=True, stop_after=13) == 143


@pytest.mark.parametrize("call", ["make_folder", "create", "write", "sync", "rename", "sync_folder", "unlink"])
def test_a_disk_that_refuses_what_a_save_does_is_found_before_training(
    here: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not writable, mounted read-only, or a network's file system that cannot rename."""

    def refuse(asked: str, path: Path) -> None:
        if asked == call:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "POINT", refuse)
    with pytest.raises(UsageError, match="run: cannot be written: Read-only file system"):
        train(out=Path("run"))
    assert not (here / "run/metrics.jsonl").exists()
