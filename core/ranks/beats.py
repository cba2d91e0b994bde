"""Heartbeats of ranks, and the sentence that names the rank for which the others wait.

Plain data and functions, without threads or messages: `core.ranks.watcher` sends and collects the beats.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

ENDING = 1.5  # seconds of `[train] rank_timeout` that are kept for the end itself
LAG = 1.5  # times the others' median: a step of a rank that lags
LAGS = 5  # such steps in a row until it is named
QUIET = 100  # steps until it is named again


@dataclass(frozen=True)
class Beat:
    """A rank's state, sent a few times a second. seconds: since the phase or the collective began; busy: seconds of
    work without a collective or a long phase. long: that of `Doing`. quiet: the next beat may take any time, since
    native code keeps the threads from running. pid: the process. leaving: the rank ends the run and prints why itself.
    """

    rank: int
    host: str
    phase: str = "starting"
    step: int = 0
    collective: str = ""
    seconds: float = 0.0
    busy: float = 0.0
    long: bool = True
    quiet: bool = False
    pid: int = 0
    leaving: bool = False

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def unpack(data: bytes) -> Beat:
        return Beat(**json.loads(data))

    @property
    def where(self) -> str:
        """ "all_reduce of step 4" or "backward of step 4"."""
        name = self.collective or self.phase
        return f"{name} of step {self.step}" if self.step else f"{name} before step 1"

    @property
    def who(self) -> str:
        return f"rank {self.rank} on {self.host}"


@dataclass(frozen=True)
class Heard:
    """A rank's last beat, and the seconds since it came."""

    beat: Beat
    ago: float = 0.0


def patience(limit: float) -> float:
    """Seconds of silence after which a rank counts as dead: all ranks have then ended within `limit`."""
    return max(limit / 2, limit - ENDING)


def death(heard: Sequence[Heard], size: int, limit: float) -> str:
    """One sentence that names the dead ranks; "" while there is none. heard: the beats of all ranks, or of those that
    this one receives. size: the number of ranks."""
    most = patience(limit)
    silent = [h for h in heard if h.ago > most and not h.beat.quiet]
    alive = [h for h in heard if h not in silent]
    waiting = [h for h in alive if h.beat.collective and h.beat.seconds + h.ago > most]
    stuck = [
        h for h in alive
        if not h.beat.collective and not h.beat.long and not h.beat.quiet and h.beat.busy + h.ago > most
    ]  # fmt: skip
    if silent:
        return _waited_for(silent, waiting or [h for h in alive if h.beat.collective], size)
    if waiting and stuck:
        return _waited_for(stuck, waiting, size)
    if waiting and len(waiting) == size:
        places = dict.fromkeys(h.beat.where for h in waiting)
        seconds = min(h.beat.seconds + h.ago for h in waiting)
        return f"all {size} ranks wait in {' and in '.join(places)} for {seconds:.0f} s: no data arrives"
    return ""


def _waited_for(missing: Sequence[Heard], waiting: Sequence[Heard], size: int) -> str:
    """The sentence: each missing rank with its state, and the collective in which the others wait."""
    names = ", ".join(h.beat.who for h in missing)
    doing = "; ".join(map(_doing, missing))
    if not waiting:
        return f"{names}: {doing}"
    keeps = "keeps" if len(missing) == 1 else "keep"
    return f"{names} {keeps} {len(waiting)} of {size} ranks waiting in {waiting[0].beat.where}: {doing}"


def _doing(heard: Heard) -> str:
    beat = heard.beat
    if heard.ago > beat.seconds or heard.ago >= 1:
        return f"silent for {heard.ago:.0f} s, and last it was in {beat.where}"
    return f"it is in {beat.where} for {beat.seconds + heard.ago:.0f} s"


def gone(heard: Sequence[Heard], ended: Collection[int]) -> str:
    """One sentence that names the ranks whose processes ended without a last beat; "" for none."""
    dead = [h for h in heard if h.beat.rank in ended and not h.beat.leaving]
    parts = [f"{h.beat.who} has ended without a word: it was in {h.beat.where}" for h in dead]
    return "; ".join(parts) + _waiting_clause(heard, ended) if dead else ""


def leaves(heard: Sequence[Heard]) -> str:
    """One sentence on a rank that ends the run, the first of `heard`; the other ranks may be waiting for it."""
    beat = heard[0].beat
    return f"{beat.who} ends the run: it was in {beat.where}{_waiting_clause(heard, [beat.rank])}"


def _waiting_clause(heard: Sequence[Heard], missing: Collection[int]) -> str:
    waiting = [h.beat for h in heard if h.beat.collective and h.beat.rank not in missing]
    return f"; {len(waiting)} of {len(heard)} ranks wait for it in {waiting[0].where}" if waiting else ""


@dataclass
class Lagging:
    """Stragglers: ranks whose own part of a step takes longer than the others'. rows: slow steps in a row, by rank."""

    rows: dict[int, int] = field(default_factory=dict)
    named: dict[int, int] = field(default_factory=dict)  # rank -> the step at which it was named

    def see(self, step: int, seconds: Sequence[float], hosts: Mapping[int, str]) -> str:
        """A sentence on a rank that lags, or "". seconds: of each rank's own part of the step, without waiting."""
        for rank, own in enumerate(seconds):
            others = statistics.median([*seconds[:rank], *seconds[rank + 1 :]])
            self.rows[rank] = self.rows.get(rank, 0) + 1 if own > LAG * others else 0
            if self.rows[rank] < LAGS or step - self.named.get(rank, -QUIET) < QUIET:
                continue
            self.named[rank] = step
            return (
                f"rank {rank} on {hosts[rank]} lags: its own part of the last {self.rows[rank]} steps took over "
                f"{LAG} times the others' median, {own:.3g} s in place of {others:.3g} s in step {step}"
            )
        return ""
