"""Processes with limits of time and memory, for code of strangers and of students: `core judge`, `core learn`.

A limit of the system ends such a process and never the command. The process is no sandbox for Python.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from core import errors
from core.device.process_memory import address_space
from core.errors import CoreError, words_of
from core.testing.worker import die_with_parent, interrupts_later
from core.threads import cores

NO_THREAD = "can't start new thread"  # Python's words where memory for one is lacking
STARTING = 300.0  # seconds to import and to load a problem; the native machine compiles once, which takes a minute
ENDING = 60.0  # seconds for a process whose end of the link is closed to be gone
UNLIMITED = "memory is not limited on this system"


@contextlib.contextmanager
def confined(context: Any, serve: Callable[..., None], *args: Any) -> Iterator[tuple[Connection, Any]]:
    """A process that runs `serve(link, *args)`: the other end of its link, and the process, which ends with the block.
    context: of multiprocessing."""
    mine, theirs = context.Pipe()
    child = context.Process(target=serve, args=(theirs, *args), daemon=True)
    with interrupts_later():
        child.start()
    theirs.close()
    try:
        yield mine, child
    finally:
        end(child)
        mine.close()


@contextlib.contextmanager
def reporting(link: Connection, output: Path | str, streams: Sequence[int]) -> Iterator[None]:
    """The work of a confined process, in the process. output: the file that its output on `streams` goes to, a kernel's
    printf too. An exception of the block is sent: ("memory", None), ("error", `as_words`) or ("broken", text)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent process
    die_with_parent()
    with contextlib.suppress(OSError, AttributeError):
        os.setpgid(0, 0)  # a group that ends as one
    with contextlib.suppress(OSError):
        file = os.open(output, os.O_WRONLY | os.O_APPEND)
        for stream in streams:
            os.dup2(file, stream)
        os.close(file)
    try:
        yield
    except CoreError as error:
        link.send(("error", as_words(error)))
    except Exception as error:
        memory = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
        link.send(("memory", None) if memory or NO_THREAD in str(error) else ("broken", words_of(error)))


def end(child: Any) -> None:
    """End the process and its children, such as a compiler."""
    with contextlib.suppress(OSError, AttributeError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.join()


def how_it_ended(child: Any) -> str:
    """The end of a process that closed its link, as text: "SIGSEGV", "exit code 3"."""
    child.join(ENDING)
    code = child.exitcode
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def as_words(error: CoreError) -> tuple[str, str, str]:
    """An expected error as its class's name, its message and its hint, which can be sent."""
    kind = next(k.__name__ for k in type(error).__mro__ if vars(errors).get(k.__name__) is k)
    return kind, error.message, error.hint


def rebuilt(kind: str, message: str, hint: str) -> CoreError:
    """An expected error of the process, here."""
    made: CoreError = getattr(errors, kind)(message, hint=hint)
    return made


def limit_cpu(seconds: float) -> None:
    """End this process with SIGXCPU after `seconds` more of processor time, where the system can: on a busy
    machine wall time is no measure."""
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def confine(seconds: float, memory: int) -> list[str]:
    """Set the limits of this process; the names of those that this system lacks."""
    try:
        import resource
    except ImportError:
        return [UNLIMITED]
    limits = {"RLIMIT_CORE": 0, "RLIMIT_CPU": math.ceil((seconds + STARTING) * cores())}
    if (used := address_space()) is not None:
        limits["RLIMIT_AS"] = used + memory
    for name, value in limits.items():
        soft, most = resource.getrlimit(getattr(resource, name))
        least = [n for n in (soft, most, value) if n != resource.RLIM_INFINITY]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (min(least), most))
    return [] if "RLIMIT_AS" in limits else [UNLIMITED]
