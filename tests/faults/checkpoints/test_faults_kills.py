"""A process that is killed at a call of a save, within a line, or with the lock in its hands.

Each kill is real, in a child that is forked at the call."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_runs import ROOT, assert_is, assert_same, count_calls, in_child, posix_only, save_and_retain, train

from core import checkpoint
from core.checkpoint import pointers
from core.cli import run as core_command
from core.train.run import Run, take_lock

KILLER = """
import os, signal
from core import files

def core_step_end(run, step, metrics):
    calls = []
    def point(call, path):
        calls.append(call)
        if step == 8 and len(calls) == AT:
            os.kill(os.getpid(), signal.SIGKILL)
    files.POINT = point
"""


@posix_only
def test_a_process_killed_within_a_save_resumes_bit_for_bit(here: Path, whole: Path) -> None:
    (here / "killer.py").write_text(KILLER.replace("AT", "9"))
    command = [sys.executable, "-m", "core.cli", "train", "small.toml", "--device", "cpu", "--plugin", "killer.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--out", "run"], cwd=here, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert any((here / "run/checkpoints").glob(".staged-*")) and checkpoint.steps(here / "run/checkpoints") == [4, 3]
    assert train(out=Path("run"), resume=True) == 0
    assert_same(here / "run", whole)
    assert not any((here / "run/checkpoints").glob(".*"))


def test_a_torn_line_of_metrics_and_steps_after_the_checkpoint_are_dropped(here: Path, whole: Path) -> None:
    shutil.copytree(whole, here / "run")
    shutil.rmtree(here / "run/checkpoints/step_00000012")  # as if it had been killed at step 11, within a line
    lines = (here / "run/metrics.jsonl").read_bytes().splitlines(keepends=True)
    (here / "run/metrics.jsonl").write_bytes(b"".join(lines[:10]) + lines[10][:37])
    assert train(out=Path("run"), resume=True) == 0
    assert_same(here / "run", whole)


@posix_only
def test_kill_9_at_any_call_of_a_save_leaves_a_valid_checkpoint(
    folder: Path, at_call: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder.parent.parent / "before"
    shutil.copytree(folder.parent, before)
    calls = count_calls(lambda: save_and_retain(folder), monkeypatch)
    assert calls > 40
    newest = set()
    for number in range(calls):
        shutil.rmtree(folder.parent)
        shutil.copytree(before, folder.parent)

        def killed(number: int = number) -> None:
            at_call(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
            save_and_retain(folder)

        assert in_child(killed) == -signal.SIGKILL
        with Run(folder.parent):  # takes the lock of the dead, and sweeps what it left
            found, problems = checkpoint.newest(folder)
            assert found is not None and not problems
            assert_is(found, found.step)
            newest.add(found.step)
            for pointer in pointers.POINTERS:  # a save behind, perhaps, and never at what is gone
                assert (folder / pointers.said(folder.parent, pointer) / checkpoint.MANIFEST).is_file()
            assert checkpoint.find(folder.parent / "BEST").step == found.step
            pointers.repair(folder.parent, pointers.LATEST, found.path.name)
            assert (folder.parent / "LATEST").read_text() == f"{found.path.name}\n"
            assert not [p for p in (*folder.iterdir(), *folder.parent.iterdir()) if p.name.startswith(".")]
            checkpoint.retain(folder, found.step, keep_last=1, keep_every=0, best=checkpoint.best(folder))  # a start's
            assert checkpoint.steps(folder) == [found.step]
            save_and_retain(folder)
        assert_is(checkpoint.find(folder), 2)
        assert checkpoint.steps(folder) == [2]
    assert newest == {1, 2}


@posix_only
def test_a_second_process_is_refused_and_a_dead_ones_lock_is_taken(
    here: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, here / "run")
    (here / "held.py").write_text(
        "import sys, time, pathlib\nfrom core.train.run import take_lock\n"
        "lock = take_lock(pathlib.Path('run/LOCK'))\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen([sys.executable, "held.py"], cwd=here, env=environment, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    before = {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()}
    again = ["train", "small.toml", "--device", "cpu", "--out", "run", "--resume"]
    assert core_command(again) == 2
    assert f"run is in use by process {holder.pid} on " in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()} == before
    holder.kill()
    holder.wait()
    assert (here / "run/LOCK").read_text().startswith(f"process {holder.pid} on ")
    assert core_command([*again, "--quiet"]) == 0
    take_lock(here / "run/LOCK").close()
