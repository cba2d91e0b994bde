"""The current state of a rank: a phase of a step, or a collective. Its watchdog reads it from another thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True)
class Doing:
    """phase: "backward", ...; step: of the run, 0 before the first. collective: the one in which the rank waits for the
    others, "" while it works. since: when that began, `time.monotonic`. long: whether the phase may take any time, as a
    compilation does. busy: when the rank last began to work after a collective or a long phase."""

    phase: str = "starting"
    step: int = 0
    collective: str = ""
    since: float = 0.0
    long: bool = True
    busy: float = 0.0


class OneRank(Protocol):
    """The part of `Ranks` that is written here. waited: seconds in collectives."""

    doing: Doing | None
    waited: float


def doing(group: OneRank) -> Doing:
    """The state of this process's rank."""
    return group.doing or Doing()


def begin(group: OneRank, phase: str, step: int | None, long: bool) -> None:
    """`Ranks.states`."""
    now, before = time.monotonic(), doing(group)
    busy = now if long or before.long else before.busy
    group.doing = Doing(phase, before.step if step is None else step, "", now, long, busy)


def polls(group: OneRank, collective: str, seconds: float) -> None:
    """`Ranks.polls`."""
    now, before = time.monotonic(), doing(group)
    if collective:
        group.doing = replace(before, collective=collective, since=now - seconds)
    elif before.collective:
        group.doing = replace(before, collective="", since=now, busy=now)


@contextlib.contextmanager
def waiting(group: OneRank, collective: str) -> Iterator[None]:
    """`Ranks.waits`."""
    before, begun = doing(group), time.monotonic()
    group.doing = replace(before, collective=collective, since=begun)
    try:
        yield
    finally:
        now = time.monotonic()
        group.waited += now - begun
        group.doing = replace(before, since=now, busy=now)
