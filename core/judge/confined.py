"""A judgement in a process of its own: a submission that hangs, or takes all memory, costs that process and a verdict.

The limits bound wall time, and memory beyond that of the process before the submission runs. The process is no sandbox
for Python: the problem's file is its author's code, and runs as such. A submission is CUDA C++ that is compiled and
simulated, at real sizes on the simulator's native machine, which checks every access.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from core.errors import BuildError, UsageError
from core.judge.hearing import OnProgress, no_progress
from core.judge.problem import load_problem
from core.judge.questions import hear
from core.judge.submission import Submission
from core.judge.verdict import FAILED, QUESTIONS, WAITING, Judgement, SubVerdict
from core.kernels.nvrtc_library import load_nvrtc
from core.sim.native.choice import natively
from core.sim.native.toolchain import machine
from core.testing.confined_process import STARTING, confine, confined, how_it_ended, rebuilt, reporting
from core.words import human

SECONDS = 120.0
REPORT = "this is a bug of corelm: please report it with the problem and the submission"
MEMORY = 4 << 30  # bytes
SPAWN = multiprocessing.get_context("spawn")


def judge(
    problem: Path,
    submission: Path | None = None,
    *,
    seed: int = 0,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    on_progress: OnProgress = no_progress,
) -> Judgement:
    """The judgement on a CUDA file by a problem's file, within `seconds` and `memory` bytes.

    submission: None for the file that the problem names (`Problem.kernel_file`). seed: of all drawn contents, not
    negative; a submission cannot know a secret one. on_progress: gets ("doing", name), ("case", text) and
    ("check", SubVerdict) as they come. Raises UsageError for numbers out of range, for files that cannot be read and
    for no submission at all, BuildError for a problem that is at fault, DeviceError where kernels cannot be compiled.
    """
    if seed < 0 or seconds <= 0 or memory <= 0:
        raise UsageError(
            f"seed={seed}, seconds={seconds}, memory={memory}; expected a seed from 0 on, and limits above 0"
        )
    began, judgement = time.monotonic(), Judgement(str(problem), str(submission or ""), seed)
    with confined(SPAWN, serve, problem, submission, seed, seconds, memory) as (link, child):
        Clerk(link, on_progress, judgement).listen(seconds, memory, child)
    judgement.seconds = time.monotonic() - began
    return judgement


class Clerk:
    """The other end of the process: gathers sub-verdicts, and gives one for an end that came too early."""

    def __init__(self, link: Connection, on_progress: OnProgress, judgement: Judgement) -> None:
        self.link, self.on_progress, self.judgement = link, on_progress, judgement
        self.doing, self.case = next(iter(QUESTIONS)), ""

    def listen(self, seconds: float, memory: int, child: Any) -> Judgement:
        end = time.monotonic() + STARTING + seconds
        try:
            while True:
                if not self.link.poll(max(0.0, end - time.monotonic())):
                    return self.cut_short(f"did not end within {seconds:g} s", "a faster kernel, or --seconds")
                kind, value = self.link.recv()
                if kind == "ready":
                    self.judgement.submission = value
                    end = time.monotonic() + seconds
                elif kind == "done":
                    self.judgement.notes += value
                    return self.judgement
                elif kind == "memory":
                    return self.cut_short(f"took more than {human(memory)} of memory", "smaller arrays, or --memory")
                elif kind == "broken":
                    return self.cut_short(f"the judge itself failed here: {value}", REPORT)
                elif kind == "error":
                    raise rebuilt(*value)
                else:
                    self.note(kind, value)
        except (EOFError, OSError):
            return self.cut_short(f"ended the process that judges it ({how_it_ended(child)})", "")

    def note(self, kind: str, value: Any) -> None:
        if kind == "doing":
            self.doing, self.case = value, ""
        elif kind == "case":
            self.case = value
        elif kind == "check":
            self.judgement.checks.append(value)
        self.on_progress(kind, value)

    def cut_short(self, problem: str, hint: str) -> Judgement:
        """The present sub-verdict fails, and later ones are not made."""
        names = list(QUESTIONS)
        for name in names[names.index(self.doing) :]:
            last = name == self.doing
            check = SubVerdict(name, FAILED if last else WAITING, problem if last else f"waits for {self.doing}",
                               hint if last else "", self.case if last else "")  # fmt: skip
            self.note("check", check)
        return self.judgement


# --- the process -----------------------------------------------------------------------------------------------------


def serve(link: Connection, problem: Path, submission: Path | None, seed: int, seconds: float, memory: int) -> None:
    """Judge and report to the other end of `link`."""
    with reporting(link, os.devnull, (1,)):  # only the verdict is printed there
        question = load_problem(problem)
        path = submission or question.submission_beside(problem)
        handed_in = Submission.read(question, path)
        load_nvrtc()
        if question.real and natively(None, ""):
            with contextlib.suppress(BuildError):  # the launch selects strict mode, which is the interpreter's
                machine()
        notes = confine(seconds, memory)
        link.send(("ready", str(path)))
        judgement = hear(question, handed_in, seed, lambda kind, value: link.send((kind, value)))
        link.send(("done", [*judgement.notes, *notes]))
