"""Which rank counts as dead, from what the ranks say of themselves; which one lags; whose cause a crash has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from fake_ranks import Beside

from core import RanksKind
from core.departure import depart
from core.loader import load_registry
from core.ranks.arrivals import state
from core.ranks.beats import LAGS, Beat, Heard, Lagging, death, gone, leaves, patience
from core.ranks.group import Ranks
from core.ranks.joining import UNFINISHED, join
from core.ranks.launched import LaunchedProcess
from core.ranks.watcher import Watcher, until_read
from core.train.crash import UNKNOWN, Cause, Replay, packed, shared

LIMIT = 5.0
ZERO = Beat(0, "a", "forward and backward", 4, "all_reduce", seconds=5, long=False)
ONE = Beat(1, "b", "forward and backward", 4, seconds=5, busy=5, long=False)
TWO = replace(ZERO, rank=2, host="b")


def test_a_beat_arrives_as_it_was_sent() -> None:
    assert Beat.unpack(ONE.pack()) == ONE


def test_all_ranks_end_within_the_limit() -> None:
    assert patience(5) + 1.5 <= 5
    assert patience(60) + 1.5 <= 60
    assert 0 < patience(2) < 2


@pytest.mark.parametrize(
    ("beats", "said"),
    [
        (
            [Heard(ZERO), Heard(ONE), Heard(TWO)],
            "rank 1 on b keeps 2 of 3 ranks waiting in all_reduce of step 4: it is in forward and backward of step 4 "
            "for 5 s",
        ),
        (
            [Heard(ZERO), Heard(ONE, 4.0), Heard(TWO)],
            "rank 1 on b keeps 2 of 3 ranks waiting in all_reduce of step 4: silent for 4 s, and last it was in "
            "forward and backward of step 4",
        ),
        (
            [Heard(replace(ONE, rank=0)), Heard(replace(TWO, rank=1), 4.0)],  # nothing waits yet
            "rank 1 on b: silent for 4 s, and last it was in all_reduce of step 4",
        ),
        (
            [Heard(ZERO), Heard(ONE), Heard(replace(ONE, rank=2, step=0, phase="the update"))],
            "rank 1 on b, rank 2 on b keep 1 of 3 ranks waiting in all_reduce of step 4: it is in forward and backward "
            "of step 4 for 5 s; it is in the update before step 1 for 5 s",
        ),
        ([Heard(ZERO), Heard(replace(TWO, rank=1)), Heard(TWO)],
         "all 3 ranks wait in all_reduce of step 4 for 5 s: no data arrives"),
        ([Heard(ZERO), Heard(replace(TWO, rank=1, collective="gather")), Heard(TWO)],
         "all 3 ranks wait in all_reduce of step 4 and in gather of step 4 for 5 s: no data arrives"),
    ],
)  # fmt: skip
def test_a_rank_that_keeps_the_others_waiting_is_named(beats: list[Heard], said: str) -> None:
    assert death(beats, 3, LIMIT) == said


@pytest.mark.parametrize(
    "beats",
    [
        [Heard(ZERO), Heard(replace(ONE, long=True, phase="saving", seconds=900)), Heard(TWO)],
        [Heard(ZERO), Heard(replace(ONE, quiet=True), 900), Heard(TWO)],  # native code without other threads
        [Heard(replace(ZERO, seconds=900)), Heard(replace(ONE, busy=1)), Heard(TWO)],  # just back from a long save
        [Heard(replace(ZERO, seconds=1)), Heard(replace(ONE, busy=900)), Heard(replace(TWO, seconds=1))],  # long steps
        [Heard(ONE), Heard(ONE), Heard(ONE)],  # nothing waits
        [Heard(ZERO), Heard(replace(TWO, rank=1, seconds=1)), Heard(TWO)],  # a large sum, piece by piece
    ],
)
def test_a_rank_that_works_is_alive(beats: list[Heard]) -> None:
    assert death(beats, 3, LIMIT) == ""


def test_a_process_that_ended_without_a_word_is_named_and_one_that_said_why_is_not() -> None:
    heard = [Heard(ZERO), Heard(ONE), Heard(TWO)]
    behind = "; 2 of 3 ranks wait for it in all_reduce of step 4"
    assert gone(heard, {1}) == f"rank 1 on b has ended without a word: it was in forward and backward of step 4{behind}"
    assert gone(heard, set()) == ""
    assert gone([Heard(ZERO), Heard(replace(ONE, leaving=True)), Heard(TWO)], {1}) == ""
    left = [heard[1], heard[0], heard[2]]
    assert leaves(left) == f"rank 1 on b ends the run: it was in forward and backward of step 4{behind}"


def test_a_rank_that_lags_for_several_steps_is_named_once_in_a_while() -> None:
    lagging, hosts = Lagging(), {0: "a", 1: "b", 2: "c"}
    said = [lagging.see(step, [1.0, 2.0, 1.1], hosts) for step in range(1, 200)]
    assert [step for step, line in enumerate(said, 1) if line] == [LAGS, LAGS + 100]
    assert said[LAGS - 1].startswith("rank 1 on b lags")
    steady = Lagging()
    assert not any(steady.see(step, [1.0, 2.0 if step % 2 else 1.0, 1.0], hosts) for step in range(1, 50))


def test_the_rank_whose_part_has_the_cause_speaks_for_all() -> None:
    ours = Replay(None, [{"tokens": np.zeros((1, 2), np.int32)}], 0.1)  # type: ignore[arg-type]
    theirs = Replay(None, [{"tokens": np.array([[4, 5]], np.int32)}], 0.1, [{"tensor": "y", "nan": 1}])  # type: ignore[arg-type]
    cause = Cause("forward", "node act is the first", node="act")
    answers = [json.dumps(part).encode() for part in (asdict(cause), packed(theirs))]
    found, replay = shared(Beside(*answers), UNKNOWN, ours)
    assert (found.rank, found.host, found.node) == (1, "b", "act")
    assert found.what == "rank 1 on b: node act is the first"
    assert replay.batches[0]["tokens"].tolist() == [[4, 5]]
    assert replay.statistics == theirs.statistics


def test_a_cause_that_no_rank_has_is_said_of_all() -> None:
    ours = Replay(None, [], 0.1)  # type: ignore[arg-type]
    found, replay = shared(Beside(json.dumps(asdict(UNKNOWN)).encode()), UNKNOWN, ours)
    assert found.what.startswith("on all 2 ranks: ")
    assert replay is ours


class Bystander(Beside):
    """Without a side channel."""

    engine = "nccl"

    def abort(self, code: int) -> None:
        raise SystemExit(code)


class BystanderKind(RanksKind):
    name = "nccl"

    def why_not(self, launched: object, device: object) -> None:
        return None

    def open(self, launched: object, device: object) -> Bystander:
        return Bystander()


def test_ranks_end_together_unless_all_have_finished() -> None:
    this = LaunchedProcess("torchrun", 0, 2, 0)
    device = load_registry().device("cpu")
    group = join({"nccl": BystanderKind()}, device, this, limit=2.0)
    assert not group.beats
    with pytest.raises(SystemExit) as ended:
        depart(0)
    assert ended.value.code == UNFINISHED
    group = join({"nccl": BystanderKind()}, device, this, limit=2.0)
    group.finish()
    depart(3)


class Sleeper(Ranks):
    """Rank 1 of 2, which is stopped for 5 s amid its first look at what others sent. stopped: seconds so far."""

    rank, size, reliable, stopped = 1, 2, True, 0.0
    looks = 0

    def __init__(self) -> None:
        self.ended: list[int] = []

    def gather(self, data: bytes) -> list[bytes]:
        return [data, data]

    def send(self, rank: int, data: bytes) -> None:
        pass

    def received(self) -> list[bytes]:
        self.looks += 1
        self.stopped = 5.0
        return []

    def abort(self, code: int) -> None:
        self.ended.append(code)


def test_a_rank_that_was_stopped_amid_a_look_judges_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    group, real = Sleeper(), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + group.stopped)
    watcher = Watcher(group, 5.0)
    watcher.begin()
    while group.looks < 3:
        time.sleep(0.01)
    watcher.end()
    assert group.ended == []


class Starved(Sleeper):
    """Each of its looks is late."""

    def received(self) -> list[bytes]:
        self.stopped += 0.25
        return []


def test_a_rank_that_starves_names_the_one_that_is_silent_nonetheless(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy without end, a stopped rank would keep the others waiting without end."""
    group, real = Starved(), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + group.stopped)
    monkeypatch.setattr("core.ranks.watcher.ASLEEP", 0.2)
    watcher, begun = Watcher(group, 1.6), real()
    watcher.begin()
    while not group.ended and real() < begun + 20:
        time.sleep(0.01)
    watcher.end()
    assert group.ended and real() - begun > 0.3, "its own lateness counts for no other"


def test_a_rank_that_was_stopped_knows_it_before_its_watchdog_has_looked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that ends a stopped rank continues it first: the thread that hears of it may run before the other."""
    group, real = Sleeper(), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + group.stopped)
    watcher = Watcher(group, 5.0)
    assert watcher.whole
    group.stopped = 4.0
    assert not watcher.whole


@pytest.mark.skipif(not state(os.getpid()), reason="the state of a process is in /proc")
def test_a_rank_that_ended_and_is_not_reaped_is_part_of_no_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped launcher leaves its ended children as zombies."""
    watcher = Watcher(Sleeper(), 5.0)
    ended = subprocess.Popen(["sleep", "60"])
    watcher._beats[0] = replace(watcher._beats[0], pid=ended.pid)
    assert watcher.whole
    ended.kill()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not watcher.whole
    ended.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="the bytes in a pipe are counted by ioctl")
def test_the_last_line_is_read_before_the_run_ends() -> None:
    """A launcher that hears of the end first may not print it."""
    reads, writes = os.pipe()
    os.write(writes, b"core: error: rank 1")
    late = threading.Timer(0.2, os.read, (reads, 100))
    late.start()
    begun = time.monotonic()
    until_read(writes)
    assert 0.15 < time.monotonic() - begun < 0.9
    late.join()
    for end in (reads, writes):
        os.close(end)
