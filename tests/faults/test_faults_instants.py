"""Signals at any instant of a start, output that is not read, and plugins that meddle with the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import checkpoint
from core.train.run import read_lines

sys.path.insert(0, str(Path(__file__).parents[1]))
from signal_sweep import at_random, prepare, started, sweep  # noqa: E402

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and terminals are POSIX's")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    return tmp_path


def test_a_signal_at_any_instant_of_a_start_ends_with_its_code(here: Path) -> None:
    wrong = sweep(here, at_random(here, 8, seed=5), seed=5)
    assert not wrong, "\n".join(wrong)


# --- readers that do not read --------------------------------------------------------------------------------------

Process = subprocess.Popen[bytes]


@pytest.fixture
def unread(here: Path) -> Iterator[Callable[[str, str], Process]]:
    """Starts a run whose stdout and stderr are not read: a full pipe, or a terminal after Ctrl-S."""
    opened: list[int] = []
    processes: list[Process] = []

    def start(kind: str, plugin: str) -> Process:
        ours, theirs = os.openpty() if kind == "terminal" else os.pipe()
        opened.extend([ours, theirs])
        if kind == "pipe":
            os.set_blocking(theirs, False)
            while True:
                try:
                    os.write(theirs, b"x" * 4096)
                except BlockingIOError:
                    break
            os.set_blocking(theirs, True)
        words = ["train", "small.toml", "--device", "cpu", "--plugin", plugin, "--out", "a"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"}
        environment |= {"CORELM_CACHE": str(here / "cache")}
        command = [sys.executable, "-m", "core.cli", *words]
        processes.append(subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=here, env=environment))
        if kind == "terminal":
            import termios

            termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
    for descriptor in opened:
        os.close(descriptor)


def steps(here: Path) -> int:
    return len(read_lines(here / "a/metrics.jsonl")) if (here / "a/metrics.jsonl").exists() else 0


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


NOISY = """
import sys, warnings
def core_step_end(run, step):
    print("a line on stdout")
    print("a line on stderr", file=sys.stderr)
    warnings.warn(f"a warning of step {step}")
"""


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_output_that_is_not_read_delays_neither_the_run_nor_a_signal(
    here: Path, unread: Callable[[str, str], Process], kind: str
) -> None:
    (here / "noisy.py").write_text(NOISY)
    process = unread(kind, "noisy.py")
    wait_for(lambda: steps(here) > 5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert checkpoint.find(here / "a").step == steps(here) > 5


def test_a_second_signal_leaves_at_once_although_stderr_is_not_read(
    here: Path, unread: Callable[[str, str], Process]
) -> None:
    (here / "hang.py").write_text("import time\ndef core_step_end(run, step):\n    time.sleep(60)\n")
    process = unread("pipe", "hang.py")
    wait_for(lambda: steps(here) == 1)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert process.wait(10) == 128 + signal.SIGINT


# --- plugins that meddle -------------------------------------------------------------------------------------------

MEDDLING = """
import os, signal, sys
from pathlib import Path

def meddle(where):
    print("printed by", where)
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

meddle("the import")

class Mute(Exception):
    def __str__(self):
        raise ValueError

def core_step_end(run, step):
    meddle("the hook")
    if step == 2:
        sys.exit(0)
    if step == 3:
        raise Mute
"""


def test_a_plugin_that_prints_moves_exits_and_takes_the_signals_harms_nothing(here: Path) -> None:
    (here / "meddling.py").write_text(MEDDLING)
    process = started(here, "--plugin", "meddling.py", "--out", "a")
    wait_for(lambda: steps(here) > 5)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert checkpoint.find(here / "a").step == steps(here)
    assert "core_step_end of meddling raised SystemExit: 0 (reported once; training continues)" in said
    assert said.count("printed by the hook") == steps(here) == (here / "a/train.log").read_text().count("by the hook")


def test_a_listing_prints_nothing_of_a_plugins_own(here: Path) -> None:
    import json

    (here / "meddling.py").write_text(MEDDLING)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "core.cli", "plugins", "--json", "--plugin", "meddling.py"]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)
    assert done.stderr == "printed by the import\n"
