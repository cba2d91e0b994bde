"""Processes that check and break at the same time: the simulator computes on one core for the most part."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache

from core.errors import DeviceError
from core.loader import load_registry
from core.pool import use
from core.registry import Registry
from core.threads import THREADS, cores


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that shares out the cores. What ends the block early, Ctrl-C too, ends its processes at once."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (max(1, cores() // workers),))
    try:
        yield pool
    except BrokenProcessPool:
        what = "a process of the check was ended from outside, as the system does where memory runs out"
        raise DeviceError(what, hint=f"fewer of them at the same time take less: {workers} did") from None
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    os.environ[THREADS] = str(threads)
    use(threads)  # the pool was made on import, for all cores


@lru_cache(maxsize=1)
def registry_of(plugins: tuple[str, ...]) -> Registry:
    """A process's own."""
    return load_registry(plugins)
