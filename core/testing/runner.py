"""Runs one launcher of one variant on a device, in buffers that reveal every wrong access.

Each tensor is between guard bands; tensors that a launcher must write start as a bit pattern that is a NaN in any float
type; inputs are compared with their earlier contents; and after the call its memory is poisoned, so that a variant that
kept a reference to it reads no tensor that it should have declared. A device takes part in the op check by a `Runner`;
this module has the cpu's.
"""

from __future__ import annotations

import functools
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core import blas
from core.device.nested import Nested
from core.devices import CPU, DeviceKind
from core.dtypes import NUMPY, arithmetic
from core.errors import BuildError
from core.op import Tensors, TensorSpec, Variant, make_tensors
from core.plan import first_config
from core.pool import Pool, aligned_empty, pool, using
from core.registry import Registry
from core.testing.compare import Array

GUARD = 4096  # bytes before and after each tensor
POISON = 0xFF  # every float type reads these bytes as not-a-number
THREE = 3  # the `Call.order` that runs a cpu variant on as many threads
OTHER = 0xA5  # a second pattern: an integer output may equal one of them, but not both


@dataclass
class Call:
    """A call of a launcher. `method` is "forward", "backward" or "forward_backward".

    given: tensors with contents (float arrays in f32 or f64, independent of the device's types), and None for
    absent ones. writes: tensors that the launcher must fill, which start poisoned. shares: {"dx": "dy"} puts the
    first into the memory of the second. may_change: given tensors that the launcher may write to.
    fill: the byte that all of `writes` starts as. fast: whether the search for races may be left out, where it is slow.
    order: on the cpu, 0 runs rows as always and any other number shuffles the order of the row ranges; elsewhere, the
    number of a further run.
    """

    variant: Variant
    method: str
    dims: Mapping[str, Any]
    given: Mapping[str, Array | None]
    dtypes: Mapping[str, str]
    writes: Mapping[str, TensorSpec] = field(default_factory=dict)
    shares: Mapping[str, str] = field(default_factory=dict)
    may_change: frozenset[str] = frozenset()
    flags: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    order: int = 0
    fill: int = POISON
    fast: bool = False

    def specs(self) -> Any:
        """`t` before it has memory, as `why_not`, `configs` and `workspace` see it."""
        tensors: dict[str, Any] = {
            k: None if v is None else TensorSpec(v.shape, self.dtypes[k]) for k, v in self.given.items()
        }
        return make_tensors(self.dims, {**tensors, **self.writes}, config=dict(self.config), **self.flags)


@dataclass
class Outcome:
    """All tensors after the call; `overrun` and `changed` name the tensors whose guards or contents were touched,
    `replaced` those whose name the launcher gave to another array (`t.y = ...`)."""

    tensors: dict[str, Array]
    overrun: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    ranges: dict[str, int] = field(default_factory=dict)  # where rows are shared out -> in how many ranges, if counted


class Runner(Protocol):
    """A device in the op check: `kind` is its row of the table of devices, `target` the open device.

    orders: `Call.order` -> its meaning: those in which a call is made again to compare its bits.
    timed: whether its time has a meaning.
    slow: whether large examples take so long that a trial of them is to be brief.
    native: whether kernels are simulated in native code, at practical sizes too.
    """

    kind: DeviceKind
    timed: bool
    orders: Mapping[int, str]
    slow: bool

    @property
    def native(self) -> bool: ...

    @property
    def target(self) -> Any: ...

    def can_run(self, variant: Variant) -> str | None:
        """The reason why a variant cannot run there at all."""
        ...

    def lacks(self, variant: Variant, dtype: str) -> str | None:
        """The reason why a variant cannot run there in `dtype`."""
        ...

    def run(self, call: Call) -> Outcome: ...

    def time(self, call: Call, repeats: int) -> float:
        """Median milliseconds of one call."""
        ...

    def gaps(self, variant: Variant) -> list[str]:
        """Lines of the variant's kernels that no call has run, where that is counted."""
        ...

    def later(self) -> AbstractContextManager[list[Any]]:
        """Launches that are to be watched for races wait: they are added to the list, with an empty case and dtype."""
        ...

    def strictly(self, late: Sequence[Any]) -> Iterable[tuple[Any, Callable[[], None]]]:
        """The waiting launches to run in strict mode, each with a function that raises for a fault."""
        ...


def best(
    registry: Registry,
    device: str,
    dtype: str,
    nested: Nested,
    can_run: Callable[[Variant], Any] = lambda variant: None,
) -> tuple[Variant, Tensors]:
    """The variant of the highest priority that can run a nested launch, and its `t`."""
    variants = registry.variants[nested.op.name].values()
    here = [v for v in variants if v.device == device and dtype in v.dtypes and arithmetic(dtype, v.tf32) == dtype]
    able = [v for v in here if can_run(v) is None and nested.why_not(v) is None]
    if not able:
        reasons = {v.name: can_run(v) or nested.why_not(v) for v in here}
        raise BuildError(f"launch.op({nested.op.name!r}): no variant can run: {reasons}")
    chosen = max(able, key=lambda v: (v.priority, v.name))
    nested.t.config = first_config(chosen, nested.t)
    return chosen, nested.t


class CpuRunner:
    """Runs variants of a device whose tensors are NumPy arrays, as a plan does: recorded once, then replayed."""

    orders: Mapping[int, str] = {
        0: "all as in the first",
        **dict.fromkeys((1, 2), "rows in another order of row ranges"),
        THREE: "on three threads",
    }
    timed = True
    slow = native = False

    def __init__(self, registry: Registry, kind: DeviceKind = CPU) -> None:
        self.registry, self.kind = registry, kind

    @cached_property
    def target(self) -> Any:
        """The device, opened when it is first needed."""
        return self.kind.open()

    def can_run(self, variant: Variant) -> str | None:
        return None

    def lacks(self, variant: Variant, dtype: str) -> str | None:
        return None

    def gaps(self, variant: Variant) -> list[str]:
        """A variant for the cpu has no kernels."""
        return []

    def later(self) -> AbstractContextManager[list[Any]]:
        return nullcontext([])

    def strictly(self, late: Sequence[Any]) -> Iterable[tuple[Any, Callable[[], None]]]:
        """Nothing watches a variant for the cpu."""
        return ()

    def pick(self, name: str, method: str, values: Mapping[str, Any]) -> tuple[Variant, Tensors]:
        """The variant of a nested launch: the best that can run on these tensors."""
        arrays = (v for v in values.values() if isinstance(v, np.ndarray) and v.dtype.kind == "f")
        dtype = "f64" if any(a.dtype == np.float64 for a in arrays) else "f32"
        return best(self.registry, self.kind.runs, dtype, Nested.of(self.registry.op(name), method, values))

    def run(self, call: Call) -> Outcome:
        buffers = self._buffers(call)
        before = {n: b.array.tobytes() for n, b in buffers.items() if n in call.given and n not in call.may_change}
        t = self._tensors(call, buffers)
        held = {n: getattr(t, n) for n in call.given.keys() | call.writes.keys()}
        scratch = GuardedArray((call.variant.workspace(call.specs()),), np.dtype(np.uint8))
        with rows_in(call.order) as ranges, np.errstate(all="ignore"):
            self.target.run(self.target.record(call.variant, call.method, t, self.pick, scratch.array))
        outcome = Outcome(
            {n: b.array.copy() for n, b in buffers.items()},
            [n for n, b in {**buffers, "workspace": scratch}.items() if b.overrun()],
            [n for n, b in before.items() if buffers[n].array.tobytes() != b],
            [n for n, array in held.items() if getattr(t, n) is not array],
            ranges,
        )
        for target, source in call.shares.items():
            outcome.tensors[target] = outcome.tensors[source]
        for buffer in (*buffers.values(), scratch):
            buffer.poison()
        return outcome

    def repeated(self, call: Call) -> Callable[[str, Array], dict[str, Array]]:
        """A function that repeats a call with other contents of one given tensor: (its name, contents) -> the
        tensors that the call writes. Recorded once, and nothing looks for wrong accesses."""
        buffers = self._buffers(call)
        scratch = GuardedArray((call.variant.workspace(call.specs()),), np.dtype(np.uint8))
        commands = self.target.record(call.variant, call.method, self._tensors(call, buffers), self.pick, scratch.array)

        def again(name: str, contents: Array) -> dict[str, Array]:
            buffers[name].array[...] = contents
            with rows_in(call.order), np.errstate(all="ignore"):
                self.target.run(commands)
            buffers[name].array[...] = call.given[name]
            return {n: buffers[call.shares.get(n, n)].array.copy() for n in call.writes}

        return again

    def _buffers(self, call: Call) -> dict[str, GuardedArray]:
        buffers = {
            name: GuardedArray(value.shape, NUMPY[call.dtypes[name]], value)
            for name, value in call.given.items()
            if value is not None
        }
        for name, spec in call.writes.items():
            if name not in call.shares:
                buffers[name] = GuardedArray(spec.shape, NUMPY[spec.dtype], fill=call.fill)
        return buffers

    def _tensors(self, call: Call, buffers: Mapping[str, GuardedArray]) -> Any:
        tensors: dict[str, Any] = {k: None if v is None else buffers[k].array for k, v in call.given.items()}
        tensors |= {k: buffers[call.shares.get(k, k)].array for k in call.writes}
        return make_tensors(call.dims, tensors, config=dict(call.config), node="check", **call.flags)

    def time(self, call: Call, repeats: int) -> float:
        buffers = {n: GuardedArray(v.shape, NUMPY[call.dtypes[n]], v) for n, v in call.given.items() if v is not None}
        buffers |= {n: GuardedArray(s.shape, NUMPY[s.dtype]) for n, s in call.writes.items() if n not in call.shares}
        commands = self.target.record(call.variant, call.method, self._tensors(call, buffers), self.pick, None)
        taken = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            self.target.run(commands)
            taken.append((time.perf_counter() - start) * 1e3)
        return statistics.median(taken[1:])


class GuardedArray:
    """A tensor between two bands of poison, aligned as a plan aligns it. `fill`: its bytes where it has no contents."""

    def __init__(
        self, shape: Sequence[int], dtype: np.dtype[Any], contents: Array | None = None, fill: int = POISON
    ) -> None:
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.whole = aligned_empty(nbytes + 2 * GUARD)
        self.whole.fill(POISON)
        self.array = self.whole[GUARD : GUARD + nbytes].view(dtype).reshape(tuple(shape))
        self.whole[GUARD : GUARD + nbytes] = fill
        if contents is not None:
            self.array[...] = contents

    def overrun(self) -> bool:
        front, back = self.whole[:GUARD], self.whole[self.whole.size - GUARD :]
        return bool((front != POISON).any() or (back != POISON).any())

    def poison(self) -> None:
        self.whole.fill(POISON)


def unwritten(array: Array, fill: int = POISON) -> Array:
    """The mask of elements that still have the bytes of `fill`."""
    bits = np.dtype(f"u{array.dtype.itemsize}")
    pattern = bits.type(int.from_bytes([fill] * bits.itemsize, "big"))
    return np.asarray(np.ascontiguousarray(array).view(bits).reshape(array.shape) == pattern)


@functools.cache
def _three() -> Pool:
    """More threads than a process of the check is given: they may change no bit."""
    return Pool(3)


class _Shuffled:
    """In place of the pool: one thread, row ranges in a random order, scratch poisoned before each range."""

    workers = 1

    def __init__(self, order: int) -> None:
        self.random = random.Random(order)
        self.scratch = np.empty(0, np.uint8)
        self.ranges: dict[str, int] = {}

    def reserve(self, nbytes: int) -> None:
        if self.scratch.size < nbytes:
            self.scratch = aligned_empty(nbytes)

    def rows(self, n: int, grain: int, f: Callable[..., None], scratch: int = 0) -> None:
        starts = list(range(0, n, grain))
        code = f.__code__
        place = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
        self.ranges[place] = max(self.ranges.get(place, 0), len(starts))
        self.share(len(starts), lambda i, *extra: f(starts[i], min(starts[i] + grain, n), *extra), scratch)

    def share(self, count: int, f: Callable[..., None], scratch: int = 0) -> None:
        order = list(range(count))
        self.random.shuffle(order)
        for i in order:
            self.scratch.fill(POISON)
            f(i, *((self.scratch[:scratch],) if scratch else ()))


@contextmanager
def rows_in(order: int) -> Iterator[dict[str, int]]:
    """Have `launch.rows` run its ranges in another order than usual, to show that no range needs another.

    Gives how many ranges there were, by the place of the function; nothing for order 0, nor on THREE threads.
    """
    shuffled = _Shuffled(order)
    with using({0: pool(), THREE: _three()}.get(order, shuffled)), blas.one_thread():
        yield shuffled.ranges
