"""The threads that share the work of one command. The cuts of the work never depend on their number: bits repeat."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from core import blas
from core.threads import workers

Array = np.ndarray[Any, Any]

ALIGN = 256  # bytes: where every tensor starts


def aligned_empty(nbytes: int) -> Array:
    """Uninitialised bytes that start on ALIGN."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes]


class _Job:
    """Pieces of work, handed out one by one: to the thread that started them, and to helpers that are awake."""

    def __init__(self, count: int, f: Callable[..., None], scratch: int) -> None:
        self.f, self.count, self.scratch = f, count, scratch
        self._next = itertools.count()
        self._lock = threading.Lock()
        self._inside = 0  # helpers that are at work
        self._closed = False
        self._left = threading.Lock()  # held until the last helper has left
        self._left.acquire()
        self.error: BaseException | None = None

    def work(self, scratch: Array) -> None:
        extra = (scratch[: self.scratch],) if self.scratch else ()
        while not self._closed and (i := next(self._next)) < self.count:
            self.f(i, *extra)

    def help(self, scratch: Array) -> None:
        """A helper's part; none where it wakes up too late, which nothing waits for."""
        with self._lock:
            if self._closed:
                return
            self._inside += 1
        try:
            self.work(scratch)
        except BaseException as error:  # handed to the thread that waits
            self.error = self.error or error
        with self._lock:
            self._inside -= 1
            if self._closed and self._inside == 0:
                self._left.release()

    def close(self) -> None:
        """Hand out no more, and wait for the helpers inside, through signals too: they write into our memory."""
        with self._lock:
            self._closed = True
            alone = self._inside == 0
        while not alone:
            try:
                alone = self._left.acquire()
            except BaseException as error:  # a signal's
                self.error = error


class Pool:
    """Helper threads, and the scratch memory of each; the calling thread works too.

    One job at a time: another thread's waits; a job of a piece runs within that piece.
    """

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self.scratch = [np.empty(0, np.uint8) for _ in range(self.workers)]
        self._turn = threading.Lock()
        self._job: _Job | None = None
        self._asleep: list[threading.Lock] = []  # of each helper, held while there is nothing new
        self._process = 0
        self._within = threading.local()

    def reserve(self, nbytes: int) -> None:
        """See that each worker has `nbytes` of scratch."""
        if self.scratch[-1].nbytes < nbytes:
            self.scratch = [aligned_empty(nbytes) for _ in self.scratch]

    def rows(self, n: int, grain: int, f: Callable[..., None], scratch: int = 0) -> None:
        """f(lo, hi) over ranges of `grain` of [0, n); with `scratch` > 0, f(lo, hi, that many bytes)."""
        self.share(-(-n // grain), lambda i, *bytes: f(i * grain, min(i * grain + grain, n), *bytes), scratch)

    def share(self, count: int, f: Callable[..., None], scratch: int = 0) -> None:
        """f(0) ... f(count - 1), in any order, on several threads. Raises the first error of one of them."""
        if getattr(self._within, "piece", False):
            _Job(count, f, scratch).work(aligned_empty(scratch))
            return
        job = _Job(count, f, scratch)
        with self._turn:
            self.reserve(scratch)
            try:
                self._within.piece = True
                if (helpers := min(self.workers, count) - 1) > 0:
                    self._job = job
                    self._wake(helpers)
                job.work(self.scratch[0])
            finally:
                self._within.piece = False
                job.close()
                self._job = None
        if job.error is not None:
            raise job.error

    def _wake(self, helpers: int) -> None:
        if self._process != os.getpid():  # the first time, or after a fork, which has no threads
            self._process, self._asleep = os.getpid(), []
            for number in range(1, self.workers):
                asleep = threading.Lock()
                asleep.acquire()
                self._asleep.append(asleep)
                threading.Thread(target=self._serve, args=(number, asleep), daemon=True, name="core-rows").start()
        for asleep in self._asleep[:helpers]:
            if asleep.locked():  # else it has been woken before, and has yet to see the job
                asleep.release()

    def _serve(self, number: int, asleep: threading.Lock) -> None:
        np.seterr(all="ignore")  # as in CpuDevice.run; NumPy keeps this per thread
        blas.limit_this_thread()
        self._within.piece = True
        while True:
            asleep.acquire()
            if (job := self._job) is not None:
                job.help(self.scratch[number])
            del job


POOL = Pool(workers())


def pool() -> Pool:
    """The process's pool."""
    return POOL


def use(threads: int) -> None:
    """Set the number of threads of this process from now on."""
    global POOL
    POOL = Pool(threads)


@contextmanager
def using(other: Any) -> Iterator[None]:
    """Another pool inside."""
    global POOL
    usual, POOL = POOL, other
    try:
        yield
    finally:
        POOL = usual
