"""The cpu device: NumPy arrays for tensors, a small thread pool for rows, BLAS for products.

Launchers are recorded here and replayed later, exactly as on a GPU: `record` calls a variant's launcher once and
returns the commands that a step replays. It knows no op and no plan.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from core.device.nested import Pick, clocked
from core.dtypes import NUMPY
from core.errors import BuildError, DeviceError
from core.op import Reference, Tensors, Variant
from core.threads import cores

Array = np.ndarray[Any, Any]
Command = Callable[[], None]

ALIGN = 256  # bytes: where every tensor starts


class RowPool:
    """Threads that share the rows of one command. Ranges depend on the rows and the grain alone, so bits repeat."""

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self.scratch = [np.empty(0, np.uint8) for _ in range(self.workers)]
        self._tasks: SimpleQueue[tuple[Callable[[int], None], int, _Latch]] = SimpleQueue()
        self._started = False
        self._lock = threading.Lock()

    def reserve(self, nbytes: int) -> None:
        """See that each worker has `nbytes` of scratch."""
        for i, held in enumerate(self.scratch):
            if held.nbytes < nbytes:
                self.scratch[i] = aligned_empty(nbytes)

    def run(self, n: int, grain: int, f: Callable[..., None], scratch: int) -> None:
        starts = range(0, n, grain)
        counter = itertools.count()
        total = len(starts)

        def work(worker: int) -> None:
            extra = (self.scratch[worker][:scratch],) if scratch else ()
            while (i := next(counter)) < total:
                lo = starts[i]
                f(lo, min(lo + grain, n), *extra)

        helpers = min(self.workers, total) - 1
        if helpers <= 0:
            work(0)
            return
        self._start()
        latch = _Latch(helpers)
        for worker in range(1, helpers + 1):
            self._tasks.put((work, worker, latch))
        try:
            work(0)
        finally:
            latch.wait()

    def _start(self) -> None:
        with self._lock:
            if not self._started:
                for _ in range(self.workers - 1):
                    threading.Thread(target=self._serve, daemon=True, name="core-rows").start()
                self._started = True

    def _serve(self) -> None:
        np.seterr(all="ignore")  # as in CpuDevice.run; NumPy keeps this per thread
        while True:
            work, worker, latch = self._tasks.get()
            try:
                work(worker)
                latch.done(None)
            except BaseException as error:  # handed to the thread that waits
                latch.done(error)


class _Latch:
    """Waits for a number of helpers and raises what one of them raised."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._error: BaseException | None = None
        self._event = threading.Event()
        self._lock = threading.Lock()

    def done(self, error: BaseException | None) -> None:
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._left == 0:
                self._event.set()

    def wait(self) -> None:
        self._event.wait()
        if self._error is not None:
            raise self._error


POOL = RowPool(cores())


def aligned_empty(nbytes: int) -> Array:
    """Uninitialised bytes that start on ALIGN."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes]


@dataclass(frozen=True)
class RowsCommand:
    """`f` over ranges of `grain` rows of [0, n): what `launch.rows` records."""

    n: int
    grain: int
    f: Callable[..., None]
    scratch: int

    def __call__(self) -> None:
        POOL.run(self.n, self.grain, self.f, self.scratch)


class Launch:
    """What a cpu launcher records into. Nothing is computed while recording."""

    def __init__(self, commands: list[Command], workspace: Array | None, pick: Pick | None) -> None:
        self.commands = commands
        self.workspace = workspace
        self._pick = pick
        self.workers = POOL.workers

    def rows(self, n: int, f: Callable[..., None], grain: int = 1, scratch: int = 0) -> None:
        """Run `f(lo, hi)` over ranges of `grain` rows of [0, n), on several threads.

        With `scratch` > 0 it is `f(lo, hi, bytes)`: that many bytes (uint8) of the worker's own. Products that use
        BLAS belong in `call`: BLAS has threads of its own.
        """
        POOL.reserve(scratch)
        self.commands.append(RowsCommand(n, grain, f, scratch))

    def call(self, f: Command) -> None:
        """Run `f()` once."""
        self.commands.append(f)

    def op(self, name: str, method: str = "forward", /, **values: Any) -> None:
        """Launch another op's chosen variant: what `Nested` says of the values."""
        if self._pick is None:
            raise BuildError(f'launch.op("{name}"): no registry to choose a variant from')
        variant, t = self._pick(name, method, values)
        self.commands += record(variant, method, t, self._pick)


def record(
    variant: Variant, method: str, t: Tensors, pick: Pick | None = None, workspace: Array | None = None
) -> list[Command]:
    """The commands of one launcher: `method` is "forward", "backward" or "forward_backward".

    `workspace` is the variant's scratch (uint8); without one, it is allocated here, once.
    """
    launcher = getattr(variant, method)
    if isinstance(variant, Reference):
        return [partial(launcher, t)]
    if workspace is None and (nbytes := variant.workspace(t)):
        workspace = aligned_empty(nbytes)
    commands: list[Command] = []
    launcher(t, Launch(commands, workspace, pick))
    return commands


class CpuDevice:
    """Memory, primitives and replay of the cpu."""

    name = "cpu"
    runs = "cpu"  # the `device` of the variants that run here
    precisions = ("f32", "f64")

    def describe(self) -> str:
        return f"cpu, {POOL.workers} cores"

    def can_run(self, variant: Variant) -> str | None:
        """Why a variant cannot run on this machine; None when it can."""
        return None

    def allocate(self, nbytes: int) -> Array:
        """Zeroed memory; the pages come when they are first touched."""
        try:
            raw = np.zeros(nbytes + ALIGN, np.uint8)
        except (MemoryError, ValueError):  # more than there is, or than an array can have
            raise DeviceError(
                f"out of memory: {nbytes:,} bytes asked for, {nbytes / 2**30:,.1f} GiB",
                hint="a smaller B, T or model needs less; `core plan` says what takes it",
            ) from None
        start = -raw.ctypes.data % ALIGN
        return raw[start : start + nbytes]

    def tensor(self, memory: Array, offset: int, shape: Sequence[int], dtype: str) -> Array:
        """A tensor that lies in `memory`, `offset` bytes from its start."""
        kind = NUMPY[dtype]
        nbytes = math.prod(shape) * kind.itemsize
        return memory[offset : offset + nbytes].view(kind).reshape(tuple(shape))

    def captured(self, commands: Sequence[Command]) -> Sequence[Command]:
        """The commands in the form that replays fastest: as they are."""
        return commands

    def elapsed(self, groups: Sequence[Sequence[Command]]) -> list[float]:
        """Run groups of commands in order; seconds of each."""
        return [clocked(self, commands) for commands in groups]

    def upload(self, tensor: Array, values: Array) -> None:
        tensor[...] = values

    def download(self, tensor: Array) -> Array:
        """A copy that later steps do not change."""
        return tensor.copy()

    def record(
        self,
        variant: Variant,
        method: str,
        t: Tensors,
        pick: Pick | None,
        workspace: Array | None,
        counters: Array | None = None,
    ) -> list[Command]:
        """The commands of one launcher; nothing here waits for another, so there are no counters."""
        return record(variant, method, t, pick, workspace)

    def record_calls(self, calls: Callable[[Launch], None], pick: Pick | None) -> list[Command]:
        """The commands that `calls(launch)` launches: an optimizer's step."""
        commands: list[Command] = []
        calls(Launch(commands, None, pick))
        return commands

    # primitives, recorded like launches

    def fill(self, target: Array, value: float) -> list[Command]:
        return [lambda: target.fill(value)]

    def copy(self, target: Array, source: Array) -> list[Command]:
        return [lambda: np.copyto(target, source)]

    def add(self, target: Array, source: Array) -> list[Command]:
        def add() -> None:
            np.add(target, source, out=target)

        return [add]

    def dot_into(self, control: Array, slot: int, a: Array, b: Array) -> list[Command]:
        """control[slot] += sum(a * b), in f64."""
        x, y = a.reshape(-1), b.reshape(-1)

        def dot() -> None:
            control[slot] += float(np.dot(x.astype(np.float64), y.astype(np.float64)))

        return [dot]

    def run(self, commands: Sequence[Command]) -> None:
        """Replay. What is not finite shows in the loss and the norm, so NumPy need not warn about it."""
        with np.errstate(all="ignore"):
            for command in commands:
                command()
