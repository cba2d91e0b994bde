"""A rank and its parent, the daemon of an MPI launcher: held while the rank saves, ended where it waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from core.plugins.mpi import daemon as parents

from core.ranks.arrivals import state

pytestmark = pytest.mark.skipif(not state(os.getpid()), reason="a rank finds its daemon in /proc")


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the place of this one's parent, a daemon that has others."""
    process = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(parents, "parent", lambda: (process.pid, "sleep"))
    monkeypatch.setattr(parents, "BETWEEN", 0.02)
    yield process
    process.kill()
    process.wait()


def becomes(process: subprocess.Popen[bytes], letters: str, seconds: float = 10.0) -> bool:
    """Whether the process's state is one of the letters within some seconds."""
    end = time.monotonic() + seconds
    while state(process.pid) not in letters and time.monotonic() < end:
        time.sleep(0.01)
    return state(process.pid) in letters


def test_a_rank_holds_its_daemon_until_the_end_of_its_step(daemon: subprocess.Popen[bytes]) -> None:
    hold = parents.Hold(speaks=False)
    for number in (signal.SIGCONT, signal.SIGTERM):
        hold.notes(number, wanted=True)
    assert hold.held and becomes(daemon, "T")
    hold.release()
    assert not hold.held and becomes(daemon, "SR")


def test_a_rank_that_has_heard_of_the_end_holds_no_daemon(daemon: subprocess.Popen[bytes]) -> None:
    """Where the two threads, of signals and of beats, are in this order."""
    hold = parents.Hold(speaks=False)
    hold.release()
    for number in (signal.SIGCONT, signal.SIGTERM):
        hold.notes(number, wanted=True)
    assert not hold.held and state(daemon.pid) in "SR"


def test_a_daemon_that_is_stopped_is_not_signalled_and_one_that_waits_is(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGSTOP)
    assert becomes(daemon, "T")
    parents.end_later(["a", "b"])
    time.sleep(parents.BETWEEN * parents.LOOKS * 2)
    daemon.send_signal(signal.SIGCONT)
    time.sleep(parents.BETWEEN * parents.LOOKS / 2)
    assert daemon.poll() is None, "signalled at once"
    assert daemon.wait(10) == -signal.SIGTERM


def test_mpiexec_of_one_host_waits_for_no_other_daemon_and_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end with its own exit code in place of the rank's, on a machine that is busy."""
    scripts: list[str] = []
    monkeypatch.setattr(parents, "run_detached", lambda script, *words, **streams: scripts.append(script))
    for name, hosts, ends in (("prterun", "aa", False), ("prterun", "ab", True), ("prted", "aa", True)):
        monkeypatch.setattr(parents, "parent", lambda name=name: (2, name))
        scripts.clear()
        parents.end_later(hosts)
        assert bool(scripts) == ends
