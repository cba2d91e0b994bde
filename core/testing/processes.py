"""Processes that check variants in parallel, since the simulator mostly computes on one core."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

from core import signals
from core.errors import DeviceError
from core.loader import load_registry
from core.pool import use
from core.registry import Registry
from core.threads import THREADS, cores

T = TypeVar("T")
R = TypeVar("R")
Words = SimpleQueue[tuple[str, str]]
POLL = 0.2  # seconds between two reads of the processes' reports
SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def processes(workers: int, words: Words | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool that shares out the cores. An early end of the block, by Ctrl-C too, ends its processes at once.

    words: where `say` puts the activity of a process.
    """
    pool = ProcessPoolExecutor(workers, SPAWN, _begin, (max(1, cores() // workers), words))
    try:
        yield pool
    except BrokenProcessPool:
        reason = "a process of the check was ended from outside; the system does so where memory runs out"
        raise DeviceError(reason, hint=f"lower --jobs: {workers} processes ran at the same time") from None
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    workers: int, function: Callable[[str], Any], names: Sequence[str], on_activity: Callable[[str], None],
    early: dict[str, Any],
) -> Iterator[Any]:  # fmt: skip
    """The results for all names in their order. `on_activity` gets the activity of the next one, then of others.

    early: where the generator is closed, or an error ends it, gets the results that were there before their turn.
    """
    words: Words = SPAWN.SimpleQueue()
    with processes(workers, words) as pool:
        results = {name: pool.submit(function, name) for name in names}
        doing: dict[str, str] = {}
        waiting = list(names)
        try:
            for name, result in results.items():
                while not result.done():
                    wait([result], POLL)
                    while not words.empty():
                        doing |= [words.get()]
                    others = [f"{n}: {text}" for n, text in doing.items() if n != name and not results[n].done()]
                    on_activity("; ".join([doing.get(name, "waiting"), *others]))
                waiting.remove(name)
                yield result.result()
        finally:
            ready = {name: results[name] for name in waiting if results[name].done()}
            early |= {name: one.result() for name, one in ready.items() if not (one.cancelled() or one.exception())}


def outcomes_of(pool: ProcessPoolExecutor, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """The results for all items in their order, waited for at safe points of signals."""
    results = [pool.submit(function, item) for item in items]
    for result in results:
        while not result.done():
            wait([result], POLL)
            signals.check()
        yield result.result()


def say(name: str, text: str) -> None:
    """Publish the activity of a name to the process that waits for it."""
    if WORDS is not None:
        WORDS.put((name, text))


WORDS: Words | None = None  # of the process at hand


def _begin(threads: int, words: Words | None) -> None:
    global WORDS
    from core.testing.worker import die_with_parent  # in the process alone, which checks variants

    WORDS = words
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent process
    die_with_parent()
    os.environ[THREADS] = str(threads)
    use(threads)  # the pool was made on import, for all cores


@lru_cache(maxsize=1)
def registry_of(plugins: tuple[str, ...]) -> Registry:
    """A process's own."""
    return load_registry(plugins)
