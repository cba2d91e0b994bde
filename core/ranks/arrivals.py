"""Ranks that never join: a rank that waits too long for the others names the missing ones of its host, and ends.

An engine's first call waits for ever where a process is stopped, or hangs before it. A process that joins has a thread
of a certain name, which the other processes of its host read in /proc.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import DeviceError
from core.ranks.launched import LAUNCHERS, LaunchedProcess
from core.terminal import visible

MARK = "core-joins"  # at most 15 bytes
ONE_RUN = ("PMIX_NAMESPACE", "SLURM_JOB_ID", "SLURM_STEP_ID", "MASTER_ADDR", "MASTER_PORT")  # alike in all of a run
STATES = {"T": "stopped", "t": "stopped", "Z": "ended", "D": "waiting for a disk"}
LATER = 1.0  # seconds that ranks leave to the one that speaks for its host
PROC = Path("/proc")


@dataclass(frozen=True)
class Neighbour:
    """A process of this host and run. state: a phrase, "" where it runs; joins: whether it waits for the others."""

    rank: int
    pid: int
    state: str
    joins: bool


@contextlib.contextmanager
def expected(this: LaunchedProcess, limit: float) -> Iterator[None]:
    """While the block runs, this process joins the others. After `limit` seconds it prints which ones it still waits
    for, and ends with the exit code of a DeviceError."""
    joined = threading.Event()
    thread = threading.Thread(target=_wait, args=(joined, this, limit), name=MARK, daemon=True)
    thread.start()
    try:
        yield
    finally:
        joined.set()


def _wait(joined: threading.Event, this: LaunchedProcess, limit: float) -> None:
    with contextlib.suppress(OSError):
        (PROC / "self" / "task" / str(threading.get_native_id()) / "comm").write_text(MARK)
    if joined.wait(limit):
        return
    try:
        _name(list(neighbours(os.environ)), this, limit)
    finally:
        os._exit(DeviceError.exit_code)


def _name(near: Sequence[Neighbour], this: LaunchedProcess, limit: float) -> None:
    """Print the error, one process a host."""
    if this.rank == min((one.rank for one in near if one.joins), default=this.rank):
        line = visible(f"{this.name}: core: error: {missing(near, this, limit)}")
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), f"{line}\n  hint: [train] rank_timeout is the limit\n".encode())
    else:
        time.sleep(LATER)


def missing(near: Sequence[Neighbour], this: LaunchedProcess, limit: float) -> str:
    """One sentence that names the missing ranks, from the processes of this host."""
    waited = f"waited {limit:.0f} s for all {this.size} ranks to join the run"
    absent = [f"rank {one.rank} (process {one.pid}, {one.state or 'at work'})" for one in near if not one.joins]
    if absent:
        return f"{waited}: {', '.join(absent)} did not come"
    here = ", ".join(str(one.rank) for one in near) or "none to be seen"
    return f"{waited}: those of this host did ({here}), of another host's one did not"


def neighbours(ours: Mapping[str, str]) -> Iterator[Neighbour]:
    """The processes of this host and run, by rank; of several with one rank (a shell and its command) one that joins.
    ours: this process's environment."""
    launcher = next((one for one in LAUNCHERS if one.rank in ours and one.size in ours), None)
    ranks: dict[int, Neighbour] = {}
    for folder in PROC.glob("[0-9]*") if launcher else ():
        try:
            theirs = dict(part.partition("=")[::2] for part in (folder / "environ").read_text().split("\0"))
            if any(theirs.get(name) != ours.get(name) for name in (launcher.size, *ONE_RUN)):  # type: ignore[union-attr]
                continue
            rank = int(theirs[launcher.rank])  # type: ignore[union-attr]
            threads = [(task / "comm").read_text().strip() for task in (folder / "task").iterdir()]
        except (OSError, ValueError, KeyError):  # no process, one of another user, or none of this run
            continue
        one = Neighbour(rank, int(folder.name), STATES.get(state(int(folder.name)), ""), MARK in threads)
        if rank not in ranks or (one.joins, one.pid) > (ranks[rank].joins, ranks[rank].pid):
            ranks[rank] = one
    return iter(ranks[rank] for rank in sorted(ranks))


def state(pid: int) -> str:
    """The letter of a process's state: "T" stopped, "Z" ended and not reaped; "" without the process or /proc."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
