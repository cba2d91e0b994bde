"""Checks in a child process with a limit of time: a kernel that hangs, or breaks the GPU's context, costs only the
child.

The child runs many tasks, since the start of a process takes a second; after a failure the next task gets a new one. It
reports each step that passed, so that its findings survive its end.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from core.device.cuda import SYNC
from core.errors import CoreError, DeviceError, OutOfMemory
from core.loader import load_registry
from core.pool import use
from core.registry import Registry
from core.testing.check import runner_of
from core.testing.devices import DeviceRunner
from core.testing.model_sizes import OVER, Left, OnActivity, SizesOutcome, Task, check_sizes
from core.testing.runner import Runner
from core.threads import THREADS
from core.verdicts import Verdicts

STARTING = 60.0  # seconds for a child to load plugins and open its device
LAUNCH = 10.0  # seconds for the launches of one call on a GPU; a training step of such a kernel would never end
LONGEST = 3600.0  # seconds of a wait that the system takes
SOON = 0.8  # of a task's seconds: the child begins no further step after these
PDEATHSIG = 1  # prctl: the signal for a child whose parent is gone


@dataclass(frozen=True)
class CheckPlace:
    """The place of checks: a device, and the plugins to load."""

    device: str
    plugins: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    threads: int = 0  # of the child; 0: by the environment


class Checker:
    """Runs tasks one after another in a child process. A context manager: its end, Ctrl-C too, ends the child.

    launch: seconds that the launches of one call may take on a GPU, at most LAUNCH.
    """

    def __init__(self, place: CheckPlace, launch: float = math.inf) -> None:
        self.place, self.launch = place, min(launch, LAUNCH)
        self._child: Any = None
        self._link: Connection | None = None

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def check(self, task: Task, seconds: float, on_activity: OnActivity = lambda text: None) -> SizesOutcome:
        """The outcome of a task within `seconds`, the start of a child included. `on_activity` gets the present
        activity. Raises DeviceError for a child that does not start."""
        began, doing = time.monotonic(), ""
        end = began + seconds
        link = self._started()
        reached = SizesOutcome(left=OVER)
        try:
            link.send(replace(task, seconds=max(0.0, SOON * (end - time.monotonic()))))
            hung = math.inf
            while True:
                limit = min(end, hung)
                if not link.poll(min(max(0.0, limit - time.monotonic()), LONGEST)):
                    if time.monotonic() < limit:
                        continue
                    self._end()
                    over = f"did not end within {self.launch:g} s: {doing}" if hung <= end else ""
                    return ended(reached, over, time.monotonic() - began)
                kind, value = link.recv()
                if kind == "launching":
                    hung, doing = time.monotonic() + self.launch, value
                elif kind == "doing":
                    on_activity(value)
                elif kind == "launched":
                    hung, doing = math.inf, ""
                elif kind == "reached":
                    reached = replace(value, left=OVER)
                elif isinstance(value, SizesOutcome):
                    if not value.passed:
                        self._end()  # memory, or the context, may be in any state
                    return value
        except (EOFError, OSError):
            return self._died(reached, doing, time.monotonic() - began)

    def _died(self, reached: SizesOutcome, doing: str, seconds: float) -> SizesOutcome:
        """The outcome of a task whose child ended unexpectedly, `doing` these launches or none."""
        child = self._child
        child.join(STARTING)
        code = child.exitcode
        self._end()
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        if doing and code != -signal.SIGKILL:  # which is the system's, where memory runs out
            return ended(reached, f"ended its process ({how}): {doing}", seconds)
        return ended(replace(reached, left=f"the process of the check ended ({how})"), "", seconds)

    def _started(self) -> Connection:
        if self._link is not None:
            return self._link
        context = multiprocessing.get_context("spawn")
        self._link, theirs = context.Pipe()
        self._child = context.Process(target=serve, args=(theirs, self.place), daemon=True)
        with interrupts_later():
            self._child.start()
        theirs.close()
        why = f"no answer within {STARTING:g} s"
        with contextlib.suppress(EOFError, OSError):
            if self._link.poll(STARTING):
                kind, value = self._link.recv()
                if kind == "ready":
                    return self._link
                why = str(value)
        self._end()
        raise DeviceError(f"the process that checks variants does not start: {why}")

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.join()
        if self._link is not None:
            self._link.close()
        self._child = self._link = None


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """Ctrl-C waits for the end of the block; a process that is started in it never sees one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ended(reached: SizesOutcome, fault: str, seconds: float) -> SizesOutcome:
    """The outcome of a task that was cut short: a failure where a launch is at fault, else its results so far."""
    if not fault:
        return replace(reached, seconds=seconds)
    return replace(reached, finding=f"a launch {fault}", left="", seconds=seconds)


class InProcess:
    """Runs tasks in this process, as Checker does in a child: for variants that can hang or end no more than the run
    itself. A task takes longer than its seconds only where one step does."""

    def __init__(self, device: str, registry: Registry) -> None:
        self.registry, self.runner = registry, runner_of(device, registry)

    def check(self, task: Task, seconds: float, on_activity: OnActivity = lambda text: None) -> SizesOutcome:
        return check_sizes(replace(task, seconds=SOON * seconds), self.registry, self.runner, on_activity=on_activity)


# --- the child -----------------------------------------------------------------------------------------------------


def serve(link: Connection, place: CheckPlace) -> None:
    """Answer tasks until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent process
    die_with_parent()
    os.environ[SYNC] = "1"  # an error then names the launch
    if place.threads:
        os.environ[THREADS] = str(place.threads)
        use(place.threads)
    try:
        registry = load_registry(place.plugins, disable=place.disable)
        runner = runner_of(place.device, registry)
        _ = runner.target  # opens the device
    except CoreError as error:
        link.send(("broken", str(error)))
        return
    link.send(("ready", None))
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = link.recv()
            current = runner if runner.timed else runner_of(place.device, registry)  # the simulator's holds outcomes
            avoid_failed(current, Verdicts(registry), task.dtype)
            watched = watch(current, link)
            outcome = check_sizes(
                task, registry, watched, *(partial(send, link, kind) for kind in ("reached", "doing"))
            )
            link.send(("done", outcome))


def send(link: Connection, kind: str, value: Any) -> None:
    link.send((kind, value))


def avoid_failed(runner: Runner, verdicts: Verdicts, dtype: str) -> None:
    """Have nested launches pass over variants that failed on the device, as a run does."""
    if isinstance(runner, DeviceRunner):
        target, failed = runner.target, verdicts.failures_on(runner.target, dtype)
        target.can_run = lambda variant: type(target).can_run(target, variant) or failed(variant)


def watch(runner: Runner, link: Connection) -> Runner:
    """The runner, made to report the start and end of launches; a device without room is no failure of the variant."""
    if not isinstance(runner, DeviceRunner) or not runner.timed:
        return runner
    usual, launch = type(runner).run, type(runner).launch

    def watched(commands: Sequence[Any]) -> None:
        runner.target.prepare(commands)
        link.send(("launching", ", ".join(dict.fromkeys(command.record.where for command in commands))))
        launch(runner, commands)
        runner.target.synchronize()
        link.send(("launched", None))

    def run(call: Any) -> Any:
        try:
            return usual(runner, call)
        except OutOfMemory as error:
            raise Left(error.message) from None

    runner.launch, runner.run = watched, run  # type: ignore[method-assign]
    return runner


def die_with_parent() -> None:
    """Have the system end this process with the one that started it, where it can."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
