"""The watchdog thread of each rank: it sends the rank's heartbeats, reads those of the others, and ends the run where a
rank is dead.

Rank 0 receives the beats of all ranks; the others receive those of rank 0 alone, so that its own death is noticed too.
The ranks of one host also check that each other's processes exist.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from core import signal_handlers
from core.errors import DeviceError
from core.ranks.arrivals import state
from core.ranks.beats import Beat, Heard, death, gone, leaves, patience
from core.ranks.doing import doing
from core.ranks.group import Ranks
from core.terminal import visible

LOOK = 0.1  # seconds between looks at the others' messages
BEAT, MANY = 0.5, 100  # seconds between beats in runs on at least this number of ranks; smaller ones have more
ASLEEP = 1.0  # seconds between two looks of a rank that was stopped or starved
AWAKE = 2.0  # seconds until a rank that slept counts as one that did not
UNREAD = 1.0  # seconds for the reader of the last line
NEXT = 1.0  # seconds that ranks after rank 1 leave it to report that rank 0 is dead


class Watcher:
    """The watchdog of a group. note: a function that records the last sentence, as in train.log."""

    def __init__(self, group: Ranks, limit: float) -> None:
        """limit: `[train] rank_timeout`, in seconds."""
        self.group, self.limit = group, limit
        self.note: Callable[[str], None] = lambda text: None
        self._beats = {rank: Beat(rank, group.host(rank)) for rank in range(group.size)}
        self._came = dict.fromkeys(self._beats if group.reliable else (), time.monotonic())
        self._every = max(LOOK, BEAT * min(1.0, group.size / MANY))
        self._looked, self._woke, self._slept = time.monotonic(), -AWAKE, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="core-ranks", daemon=True)
        self._others = range(1, group.size) if group.leads else range(1)

    def begin(self) -> None:
        """Start the thread. Every rank calls this, since the ranks exchange their pids first."""
        pids = [int(pid) for pid in self.group.gather(str(os.getpid()).encode())]
        self._beats = {rank: replace(beat, pid=pids[rank]) for rank, beat in self._beats.items()}
        signal_handlers.around_native(self._quiet)
        self._thread.start()

    def end(self) -> None:
        """Stop the thread: no more beats are sent or read."""
        self._ended.set()
        self._thread.join(1.0)

    def leaves(self) -> None:
        """Send a last beat: this rank ends the run, and has printed why."""
        data = replace(self._own(), leaving=True).pack()
        for rank in range(self.group.size):
            if rank != self.group.rank:
                self.group.send(rank, data)

    @property
    def whole(self) -> bool:
        """Whether the run continues as far as this rank knows: no rank leaves, no process of this host has ended, and
        this rank was not stopped for so long that the others may have taken it for dead."""
        left = any(beat.leaving for beat in self._beats.values()) or self._processes_ended(self._beats, unreaped=True)
        return not (left or self.group.finished or self._was_asleep(patience(self.limit) / 2))

    def _was_asleep(self, seconds: float) -> bool:
        """Whether this rank did not run for so long, until a moment ago. Of a rank that a signal continues, the thread
        that receives the signal may need it before the one that looks has run again."""
        now = time.monotonic()
        return now - self._looked > seconds or (now - self._woke < AWAKE and self._slept > seconds)

    def _quiet(self, begins: bool) -> None:
        self._send(replace(self._own(), quiet=begins))

    def _own(self) -> Beat:
        """This rank's beat at this moment."""
        now, rank = time.monotonic(), self.group.rank
        does = doing(self.group)
        seconds, busy = (round(now - since, 1) if since else 0.0 for since in (does.since, does.busy))
        host = self.group.host(rank)
        return Beat(rank, host, does.phase, does.step, does.collective, seconds, busy, does.long, pid=os.getpid())

    def _send(self, beat: Beat) -> None:
        for rank in self._others:
            self.group.send(rank, beat.pack())

    def _watch(self) -> None:
        sent, self._looked = 0.0, time.monotonic()
        while not (self._ended.wait(LOOK) or self.group.finished):
            now = time.monotonic()  # for the whole look: a rank stopped during it takes no other one for dead
            if now - self._looked > ASLEEP:
                self._wake(now, now - self._looked)
            self._looked = now
            if now - sent >= self._every:
                sent = now
                self._send(self._own())
            self._hear(now)
            said = self._dead(self._heard(now))
            if said and not self._ended.is_set():
                self._end_all(said)

    def _wake(self, now: float, slept: float) -> None:
        """Time in which this rank did not look is no silence of the others, whose beats are still to be read; ASLEEP of
        it counts, so that one that starves without end still ends."""
        self._came = {rank: came + slept - ASLEEP for rank, came in self._came.items()}
        self._slept = max(slept, self._slept) if now - self._woke < AWAKE else slept
        self._woke = now

    def _dead(self, heard: list[Heard]) -> str:
        """A sentence that names a dead rank, or "". Rank 0 decides for all ranks; the others decide only where rank 0
        is silent. A rank that the others may have declared dead decides nothing; on a rank that slept, the last beat of
        one that ended meanwhile may be lost."""
        if self._was_asleep(patience(self.limit) / 2):
            return ""
        limit, said = self.limit + (NEXT if self.group.rank > 1 else 0.0), ""
        if self.group.rank < 2 and not self._was_asleep(ASLEEP):
            said = gone(heard, self._processes_ended(self._others))
        if not said and self.group.beats and (self.group.leads or heard[0].ago > patience(limit)):
            said = death(heard, self.group.size, limit)
        return said

    def _hear(self, now: float) -> None:
        for data in self.group.received():
            beat, before = Beat.unpack(data), self._beats[Beat.unpack(data).rank]
            if beat.leaving and not (before.leaving or beat.collective) and self.group.leads:
                self._say(f"core: {leaves([Heard(beat), *(h for h in self._heard(now) if h.beat.rank != beat.rank)])}")
            self._beats[beat.rank] = replace(beat, leaving=beat.leaving or before.leaving)
            self._came[beat.rank] = now
            if beat.leaving:
                self.group.falls()

    def _heard(self, now: float) -> list[Heard]:
        """This rank's beat and those that it receives, in the order of ranks."""
        others = [Heard(self._beats[rank], now - self._came.get(rank, now)) for rank in self._others]
        return sorted([Heard(self._own()), *others], key=lambda heard: heard.beat.rank)

    def _processes_ended(self, ranks: Iterable[int], unreaped: bool = False) -> set[int]:
        """The ranks of this host, among `ranks`, whose processes no longer exist. unreaped: those, too, whose exit code
        the launcher has not read yet; until then their end is the launcher's to act on."""
        host, ended = self.group.host(self.group.rank), set()
        for rank in ranks:
            if self.group.host(rank) == host and self._beats[rank].pid:
                try:
                    os.kill(self._beats[rank].pid, 0)
                except ProcessLookupError:
                    ended.add(rank)
                except PermissionError:
                    pass
                if unreaped and state(self._beats[rank].pid) == "Z":
                    ended.add(rank)
        return ended

    def _end_all(self, said: str) -> None:
        self.leaves()
        self._say(f"core: error: {said}")
        with suppress(OSError, ValueError):
            until_read(sys.stderr.fileno())
        self.group.abort(DeviceError.exit_code)

    def _say(self, line: str) -> None:
        prefix = "" if self.group.leads else f"{self.group.name}: "
        with suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), f"{visible(prefix + line)}\n".encode())
        with suppress(Exception):
            self.note(line.removeprefix("core: "))


def until_read(descriptor: int) -> None:
    """Return when a pipe's reader has all of it, after UNREAD seconds at most: a launcher that hears of the end first
    may print no more."""
    with suppress(ImportError, OSError):  # not on Windows; no pipe
        import fcntl
        import termios

        end = time.monotonic() + UNREAD
        while any(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)) and time.monotonic() < end:
            time.sleep(LOOK / 10)
