"""The group of a run, from the launcher's variables and the engines that plugins bring."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping

from core import signals
from core.departure import before_exit
from core.devices.kind import DeviceKind
from core.errors import DeviceError
from core.ranks.arrivals import expected
from core.ranks.group import ALONE, Ranks
from core.ranks.launched import LaunchedProcess
from core.ranks.ranks_kind import RanksKind
from core.ranks.watcher import Watcher

LAST_MESSAGE = 0.15  # seconds in which the others read that this rank ends the run
UNFINISHED = 70  # the exit code of a rank that ended too early without one


def join(kinds: Mapping[str, RanksKind], device: DeviceKind, this: LaunchedProcess, limit: float = 60.0) -> Ranks:
    """The processes that a launcher started for this run, joined by the first engine that can; ALONE without a
    launcher. The group ends with the command: a rank that fails ends all. limit: `[train] rank_timeout`, in seconds.

    Raises DeviceError where no engine can join them, or where the engine's world is not the launcher's.
    """
    if this.size == 1:
        return ALONE
    reasons: dict[str, str] = {}
    for kind in sorted(kinds.values(), key=lambda kind: -kind.priority):
        reason = kind.why_not(this, device)
        if reason is None:
            with expected(this, limit):
                group = kind.open(this, device)
            check_world(group, this)
            group.limit = limit
            group.watcher = Watcher(group, limit)
            group.watcher.begin()
            signals.witness(functools.partial(_signalled, group), group.witnessed)
            before_exit(functools.partial(leave, group))
            return group
        reasons[kind.name] = reason
    listed = "".join(f"\n    {name}: {reason}" for name, reason in reasons.items()) or " there is none"
    raise DeviceError(
        f"{this.launcher} started {this.size} ranks for a run {device.where}, and no engine joins them:{listed}",
        hint=f"mpiexec -n {this.size} core ... joins ranks on every device, with pip install 'corelm[mpi]'",
    )


def _signalled(group: Ranks, number: int) -> None:
    group.signalled(number, signals.training() and group.watcher.whole)


def check_world(group: Ranks, this: LaunchedProcess) -> None:
    """Raises DeviceError unless engine and launcher agree on rank and size: else several runs would each believe to
    be all of it."""
    if (group.rank, group.size) == (this.rank, this.size):
        return
    raise DeviceError(
        f"{this.launcher} started this process as rank {this.rank} of {this.size}, and the library of "
        f"{group.engine} takes it for rank {group.rank} of {group.size}",
        hint="use the mpiexec of the library that is installed (`core doctor` shows it)",
    )


def leave(group: Ranks, code: int) -> None:
    """The last step of a rank. One that ends before all have finished ends the others too, since they would wait for it
    for ever."""
    if group.finished:
        if group.watcher is not None:
            group.watcher.end()
        group.close(code)
    elif group.size > 1:
        if group.watcher is not None:
            group.watcher.leaves()
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(LAST_MESSAGE)
        group.abort(code or UNFINISHED)
