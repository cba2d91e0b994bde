"""The grading of answers, each in a process of its own with limits of time and memory.

A kernel that never ends, or an answer that ends its process, costs that process and gets a verdict. Where the system
forks, the processes come from a server that has imported everything, so that a verdict takes tenths of a second.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.testing.confined_process import STARTING, confine, confined, how_it_ended, limit_cpu, rebuilt, reporting
from core.testing.puzzle_types import OnActivity, PuzzleVerdict, load_puzzle, no_display
from core.words import human

SECONDS = 10.0  # of a verdict, of processor time
PATIENCE = 4.0  # times as many of wall time
MEMORY = 2 << 30  # bytes
PRINTED = 4000  # characters of a student's own output that a verdict keeps


def grade(
    puzzle: Path, answer: Path, *, seconds: float = SECONDS, memory: int = MEMORY, on_activity: OnActivity = no_display,
    imports: Sequence[str] = (),
) -> PuzzleVerdict:  # fmt: skip
    """The verdict on an answer's file by a puzzle's file, within `memory` bytes and `seconds` of processor time, its
    task's if they are more, or four times as many of wall time.

    The process is no sandbox: a puzzle's file is its author's code, a Python answer its student's, and both run as
    such. on_activity: gets the case that runs. imports: modules that the server of processes imports once, for all
    verdicts. Raises UsageError for files that cannot be read and limits out of range, BuildError for a puzzle at fault.
    """
    if seconds <= 0 or memory <= 0:
        raise UsageError(f"seconds={seconds}, memory={memory}; expected limits above 0")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "printed"
        printed.touch()
        with confined(context_of(imports), serve, puzzle, answer, printed, seconds, memory) as (link, child):
            verdict = listen(link, child, seconds, memory, on_activity)
        text = printed.read_text("utf-8", errors="replace")
    cut = f"{text[:PRINTED]}\n...\n" if len(text) > PRINTED else text
    return replace(verdict, printed=cut, seconds=time.monotonic() - began)


def warm(imports: Sequence[str]) -> None:
    """Start the server of processes, which imports `imports` while this process does something else."""
    if sys.platform == "linux":
        context_of(imports)
        forkserver.ensure_running()


def context_of(imports: Sequence[str]) -> Any:
    """The way in which processes start: from a server that has `imports`, where the system forks."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *imports])
    return context


def listen(link: Connection, child: Any, seconds: float, memory: int, on_activity: OnActivity) -> PuzzleVerdict:
    """The verdict that the process sends, or one for an end that came too early."""
    stop, case, endless = time.monotonic() + STARTING, "", f"the answer still runs after {seconds:g} s"
    try:
        while link.poll(max(0.0, stop - time.monotonic())):
            kind, value = link.recv()
            if kind == "ready":
                stop = time.monotonic() + PATIENCE * value
                endless = f"the answer still runs after {value:g} s"
            elif kind == "case":
                case = value
                on_activity(value)
            elif kind == "verdict":
                verdict: PuzzleVerdict = value
                return verdict
            elif kind == "memory":
                return PuzzleVerdict("runs", "memory", f"the answer took more than {human(memory)} of memory", case)
            elif kind == "error":
                raise rebuilt(*value)
            else:
                return PuzzleVerdict("runs", "grader", f"the grader itself failed here: {value}", case)
    except (EOFError, OSError):
        if (how := how_it_ended(child)) != "SIGXCPU":
            return PuzzleVerdict("runs", "died", f"the answer ended the process that grades it ({how})", case)
    return PuzzleVerdict("runs", "endless", endless, case)


def serve(link: Connection, puzzle: Path, answer: Path, printed: Path, seconds: float, memory: int) -> None:
    """Grade, and report to the other end of `link`."""
    with reporting(link, printed, (1, 2)):
        task = load_puzzle(puzzle).task
        seconds = max(seconds, task.seconds)
        confine(seconds, memory)
        limit_cpu(seconds)
        link.send(("ready", seconds))
        verdict = task.verdict(answer, lambda case: link.send(("case", case)))
        sys.stdout.flush()
        link.send(("verdict", verdict))
