"""Terminals and pipes that close, shrink or go away, and second signals, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from signalled_runs import ROOT, Start, at, last_line, send, trainer, wait_for, within_step

from core import checkpoint
from core.train.loop import run_job

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and terminals are POSIX's")


def test_a_second_signal_leaves_at_once_and_the_checkpoint_before_is_whole(here: Path, start: Start) -> None:
    (here / "hang").touch()
    process = start(stderr=subprocess.PIPE)
    wait_for(lambda: (here / "hanging").exists())
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert b"once more leaves at once" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert checkpoint.find(here / "a").step == 2


def test_a_terminal_that_goes_away_ends_the_run_with_a_checkpoint(here: Path, start: Start) -> None:
    ours, theirs = os.openpty()
    long = ("--set", "train.steps=100000", "--set", "train.checkpoint_every=100000")
    process = start(*long, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=own)
    os.close(theirs)
    drained(ours, lambda: at(here) >= 2)
    os.close(ours)  # the kernel sends SIGHUP, and every write to the terminal fails from now on
    assert process.wait(60) == 129
    assert last_line().startswith(
        f"ended by SIGHUP after step {checkpoint.find(here / 'a').step}/100000: the checkpoint"
    )


def own() -> None:
    """In the child: stdin becomes the terminal of the new session."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def drained(terminal: int, until: Callable[[], bool]) -> bytes:
    """What is written to a terminal until something is true, or its other side is closed."""
    os.set_blocking(terminal, False)
    found, end = b"", time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "it did not come"
        try:
            found += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:  # Linux: nobody is there any more
            break
    return found


def test_a_signal_that_nobody_can_be_told_of_is_honoured(here: Path, stack: ExitStack) -> None:
    made = trainer(stack)
    (reader, writer), kept = os.pipe(), os.dup(2)
    os.close(reader)
    within_step(made, 3, lambda: send("SIGTERM"))
    os.dup2(writer, 2)  # a stderr that refuses every write
    try:
        assert run_job(made) == 143 and checkpoint.find(here / "a").step == 3
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(writer)


def test_nohup_is_respected(here: Path, start: Start) -> None:
    process = start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for(lambda: at(here) >= 1)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0 and last_line().startswith("done: 6 steps")


def test_a_reader_that_leaves_does_not_stop_the_run(here: Path, start: Start) -> None:
    process = start(stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None and process.stderr.read() == b""
    lines = (here / "a/train.log").read_text("utf-8").splitlines()
    assert lines[-1].startswith("done: 6 steps") and sum(line.startswith("step ") for line in lines) == 6


@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_a_small_terminal_of_the_c_locale_that_is_resized_is_no_problem(
    here: Path, start: Start, terminal: str
) -> None:
    import fcntl
    import struct
    import termios

    def size(columns: int) -> None:
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 10, columns, 0, 0))

    ours, theirs = os.openpty()
    size(40)
    odd = {"TERM": terminal, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"}
    process = start(stdin=theirs, stdout=theirs, stderr=theirs, env=odd, start_new_session=True, preexec_fn=own)
    os.close(theirs)
    shown = drained(ours, lambda: at(here) >= 2)
    for columns in (1, 0, 7, 40):
        size(columns)
    shown += drained(ours, lambda: process.poll() is not None)
    with contextlib.suppress(OSError):
        shown += os.read(ours, 65536)
    os.close(ours)
    assert process.wait(60) == 0, shown.decode("utf-8", "replace")
    assert b"\x1b" not in shown and b"Traceback" not in shown and b"done: 6 steps" in shown
    assert "naïve" in (here / "a/train.log").read_text("utf-8")


def test_other_verbs_end_quietly_when_nobody_reads(here: Path) -> None:
    command = f'"{sys.executable}" -m core.cli'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for line, code in (
        (f"set -o pipefail; {command} ops | true", 0),
        (f"{command} ops >&-", 0),
        (f"{command} ops > /dev/full", 2),
    ):
        if "/dev/full" in line and not Path("/dev/full").exists():
            continue
        done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
        said = "core: error: the output cannot be written: No space left on device" if code else ""
        assert (done.returncode, done.stderr.partition("\n")[0]) == (code, said), line
