"""Runs one launcher of a kernel's variant, on a GPU or in the simulator, for the op check.

As in the cpu's runner, every tensor is in memory of its own, tensors to be written start as not-a-number, and inputs
are compared with their earlier contents. The simulator's own bounds are exact and catch reads too; on a GPU guard bands
catch stray writes.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from functools import cached_property, partial
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from core.device.launch import LaunchRecord, element_type
from core.device.nested import Nested
from core.devices import CUDA, SIM, DeviceKind
from core.dtypes import NARROW, NUMPY, arithmetic
from core.kernels.nvrtc import Kernel
from core.kernels.tensors import DeviceTensor, decode, encode
from core.op import Tensors, Variant, make_tensors
from core.registry import Registry
from core.sim.faults import KernelError
from core.sim.launching.launch_report import Report
from core.sim.launching.thread_order import SEEDS
from core.sim.machine.address_space import Memory
from core.sim.native.choice import natively
from core.testing.compare import Array
from core.testing.coverage import Coverage
from core.testing.late_launches import LateLaunch, Snapshot, at_the_time, uncollected, unowned
from core.testing.runner import GUARD, POISON, Call, Outcome, best
from core.testing.strict_choice import StrictChoice

if TYPE_CHECKING:
    from core.device.protocol import Device


class Placed:
    """A tensor in an allocation of its own, between guard bands of `guard` bytes; bytes of `fill` without contents."""

    def __init__(
        self, device: Device, shape: Sequence[int], dtype: str, contents: Array | None, guard: int, fill: int = POISON
    ) -> None:
        self.device, self.guard, self.dtype, self.fill = device, guard, dtype, fill
        size = math.prod(shape) * NUMPY[dtype].itemsize
        whole = np.full(size, fill, np.uint8)
        if contents is not None:
            whole = encode(contents, dtype, shape).reshape(-1).view(np.uint8)
        if guard:
            band = np.full(guard, POISON, np.uint8)
            whole = np.concatenate([band, whole, band])
        memory = device.allocate(whole.size)
        self.whole: DeviceTensor = device.tensor(memory, 0, whole.shape, "u8")
        self.tensor: DeviceTensor = device.tensor(memory, guard, tuple(shape), dtype)
        device.upload(self.whole, whole)

    def bytes(self) -> Array:
        contents: Array = self.device.download(self.whole)
        return contents

    def inner(self) -> Array:
        """The bytes between the guard bands."""
        return self.bytes()[self.guard : self.whole.size - self.guard]

    def read(self) -> tuple[Array, Array, bool]:
        """(the contents as the host computes with them, their bytes, whether a guard band was touched)."""
        whole = self.bytes()
        inner = whole[self.guard : whole.size - self.guard]
        touched = any((band != POISON).any() for band in (whole[: self.guard], whole[whole.size - self.guard :]))
        values = decode(inner.view(NUMPY[self.dtype]).reshape(self.tensor.shape), self.dtype).copy()
        if self.dtype in NARROW:
            stored = inner.view(np.uint16).reshape(self.tensor.shape)
            values.view(np.uint32)[stored == self.fill * 0x0101] = self.fill * 0x01010101  # all bytes still are
        return values, inner, touched


class DeviceRunner:
    """A GPU in the op check. `guard`: bytes before and after each tensor. `timed`: whether its time has a meaning."""

    orders: Mapping[int, str] = {1: "all as in the first", 2: "all as in the first"}
    guard = GUARD
    timed = True
    slow = False
    native = False

    def __init__(self, registry: Registry, kind: DeviceKind = CUDA) -> None:
        self.registry, self.kind = registry, kind

    @cached_property
    def target(self) -> Any:
        """The device, opened when it is first needed."""
        return self.kind.open()

    def can_run(self, variant: Variant) -> str | None:
        why: str | None = self.target.can_run(variant)
        return why

    def lacks(self, variant: Variant, dtype: str) -> str | None:
        form = arithmetic(dtype, variant.tf32)
        return None if self.target.multiplies(form) else f"{self.target.arch} has no {form}"

    def pick(self, name: str, method: str, values: Mapping[str, Any]) -> tuple[Variant, Tensors]:
        """The variant of a nested launch: the best that can run on these tensors."""
        nested = Nested.of(self.registry.op(name), method, values)
        return best(self.registry, self.kind.runs, element_type(nested.t), nested, self.target.can_run)

    def _place(self, call: Call) -> dict[str, Placed]:
        placed = {
            name: Placed(self.target, value.shape, call.dtypes[name], value, self.guard)
            for name, value in call.given.items()
            if value is not None
        }
        for name, spec in call.writes.items():
            if name not in call.shares:
                placed[name] = Placed(self.target, spec.shape, spec.dtype, None, self.guard, call.fill)
        return placed

    def _record(self, call: Call, placed: Mapping[str, Placed]) -> tuple[list[Any], dict[str, Placed]]:
        """The commands, and the scratch that they use: workspace and counters."""
        tensors: dict[str, Any] = {k: None if v is None else placed[k].tensor for k, v in call.given.items()}
        tensors |= {k: placed[call.shares.get(k, k)].tensor for k in call.writes}
        t = make_tensors(call.dims, tensors, config=dict(call.config), node="", **call.flags)
        scratch = self._scratch(call)
        buffers = [scratch[name].tensor if name in scratch else None for name in ("workspace", "counters")]
        return self.target.record(call.variant, call.method, t, self.pick, *buffers), scratch

    def _scratch(self, call: Call) -> dict[str, Placed]:
        scratch: dict[str, Placed] = {}
        t = call.specs()
        if nbytes := call.variant.workspace(t):
            scratch["workspace"] = Placed(self.target, (nbytes,), "u8", None, self.guard)
        if count := call.variant.counters(t):
            scratch["counters"] = Placed(self.target, (count,), "u32", np.zeros(count), self.guard)
        return scratch

    def gaps(self, variant: Variant) -> list[str]:
        """A GPU counts nothing."""
        return []

    def later(self) -> AbstractContextManager[list[Any]]:
        return nullcontext([])

    def strictly(self, late: Sequence[Any]) -> Iterable[tuple[Any, Callable[[], None]]]:
        """Nothing watches a GPU."""
        return ()

    def launch(self, commands: Sequence[Any]) -> None:
        self.target.run(commands)

    def run(self, call: Call) -> Outcome:
        placed = self._place(call)
        unchanged = [n for n in placed if n in call.given and n not in call.may_change]
        before = {n: placed[n].inner() for n in unchanged}
        commands, scratch = self._record(call, placed)
        self.launch(commands)
        tensors = {n: p.read() for n, p in placed.items()}
        outcome = Outcome({n: values for n, (values, _, _) in tensors.items()})
        outcome.overrun = [n for n, (_, _, touched) in tensors.items() if touched]
        outcome.overrun += [n for n, p in scratch.items() if p.read()[2]]
        outcome.changed = [n for n in unchanged if not np.array_equal(tensors[n][1], before[n])]
        outcome.changed += _left(scratch["counters"].read()[0]) if "counters" in scratch else []
        for target, source in call.shares.items():
            outcome.tensors[target] = outcome.tensors[source]
        return outcome

    def time(self, call: Call, repeats: int) -> float:
        """Median milliseconds, launch to end; the first run, which compiles, does not count."""
        commands, _ = self._record(call, self._place(call))
        taken = []
        for _ in range(repeats + 1):
            self.target.synchronize()
            start = time.perf_counter()
            self.target.run(commands)
            self.target.synchronize()
            taken.append((time.perf_counter() - start) * 1e3)
        return statistics.median(taken[1:])


def _left(counters: Array) -> list[str]:
    """Counters that a launch does not leave at zero: the next launch would begin with them."""
    wrong = np.flatnonzero(counters)
    if not wrong.size:
        return []
    first, more = int(wrong[0]), f" (and {wrong.size - 1} more)" if wrong.size > 1 else ""
    return [f"counters[{first}]{more}, which is {int(counters[first])} after the launch and has to be left at zero"]


class SimRunner(DeviceRunner):
    """The simulator in the op check: every tensor its own region, so that bounds are exact.

    Everything runs in fast mode, natively where that is possible. A way of launching a kernel (sizes, numbers, shapes,
    types and absence of its tensors) whose first launch has something new to show (strict_choice.py) runs again from
    the same memory in strict mode, which tries every order that can show; the bits must agree. The machine screens most
    of these launches (core/sim/launching/screened.py). The same call has the same outcome, so it is made once: one with
    another `order` is not the same. A kernel that was found to be endless is not waited for again.
    """

    orders: Mapping[int, str] = {1: "in fast mode"}
    guard = 0
    timed = False
    slow = True
    strict = True  # False: everything runs fast
    fast = False  # whether the call at hand does
    late: list[LateLaunch] | None = None  # launches that wait for strict mode; None: none waits

    @property
    def native(self) -> bool:  # type: ignore[override]
        """Whether launches without strict mode run in native code."""
        return natively(None, "")

    def __init__(self, registry: Registry, kind: DeviceKind = SIM) -> None:
        super().__init__(registry, kind)
        self.seen: set[tuple[Any, ...]] = set()
        self.held: dict[tuple[Any, ...], Outcome] = {}
        self.endless: dict[Kernel, KernelError] = {}
        self.coverage, self.choice = Coverage(), StrictChoice()
        self.interpreted: set[tuple[Any, ...]] = set()  # kernels that strict mode has run on the interpreter: typed

    @cached_property
    def target(self) -> Any:
        device = self.kind.open()
        device.on_report = self.coverage.saw
        return device

    def gaps(self, variant: Variant) -> list[str]:
        """Lines of a variant's kernels that no example has run, and loops that did not repeat."""
        return self.coverage.undeclared(variant)

    def _place(self, call: Call) -> dict[str, Placed]:
        """The tensors as on a GPU, with names for the simulator's errors."""
        placed = super()._place(call)
        name_tensors(self.target.space, placed)
        return placed

    def run(self, call: Call) -> Outcome:
        key = all_of(call)
        if key not in self.held:
            self.fast = call.fast
            self.held[key] = super().run(call)
        return self.held[key]

    def launch(self, commands: Sequence[LaunchRecord]) -> None:
        self.target.prepare(commands)
        for record in commands:
            if not isinstance(record, LaunchRecord):  # work of the host, in which nothing can race
                self.target.run([record])
                continue
            way = way_of(record)
            if self.strict and not self.fast and way not in self.seen:
                self.seen.add(way)
                self._watched(record)
            else:
                self._run(record)

    def _watched(self, record: LaunchRecord) -> None:
        """Run a launch, and in strict mode too where that may show something: its error is the more precise one."""
        before, raised = Snapshot(self.target.space), None
        integers = {
            i: self.target.download(a)
            for i, a in enumerate(record.args)
            if isinstance(a, DeviceTensor) and a.dtype in ("i32", "u32", "u8")
        }
        reports: list[Report] = []
        try:
            with self._reporting(reports):
                self._run(record)
        except KernelError as error:
            if error.kind == "endless":
                raise
            raised = error
        shown = None if raised is not None else self.choice.shown(record, reports[0], integers)
        if shown is not None and self.late is not None and self.target.space.heap is None:
            if self.choice.news(shown):
                self.late.append(LateLaunch(unowned(record), shown, before, Snapshot(self.target.space)))
            return
        if shown is not None and not self.choice.is_new(shown):
            return
        after = Snapshot(self.target.space)
        before.restore()
        self._strictly(record)
        if raised is not None:
            raise raised
        after.hold(self.target.space, record)

    @contextmanager
    def later(self) -> Iterator[list[LateLaunch]]:
        """Launches wait for strict mode: they are added to the list."""
        self.late = late = list[LateLaunch]()
        try:
            yield late
        finally:
            self.late = None

    def strictly(self, late: Sequence[LateLaunch]) -> Iterator[tuple[LateLaunch, Callable[[], None]]]:
        """The waiting launches to run in strict mode, each with the function that runs it and raises KernelError."""
        with uncollected():
            for place in self.choice.chosen([one.shown for one in late]):
                yield late[place], partial(self._then, late[place])

    def _then(self, one: LateLaunch) -> None:
        """Run a launch in strict mode on the memory that it had."""
        with at_the_time(one.before):
            self._strictly(one.record, self.choice.seeds(one.shown))
            one.after.hold(self.target.space, one.record)

    def _strictly(self, record: LaunchRecord, seeds: Sequence[int] = SEEDS) -> None:
        self.target.seeds = seeds
        with redirect_stdout(StringIO()):  # the kernel's printf: the first run has printed it
            self._run(record, strict=True)

    @contextmanager
    def _reporting(self, reports: list[Report]) -> Iterator[None]:
        """Have launches report into a list, too."""
        usual = self.target.on_report

        def saw(record: LaunchRecord, report: Report) -> None:
            reports.append(report)
            if usual is not None:
                usual(record, report)

        self.target.on_report = saw
        try:
            yield
        finally:
            self.target.on_report = usual

    def _run(self, record: LaunchRecord, strict: bool = False) -> None:
        if record.kernel in self.endless:
            raise self.endless[record.kernel]
        self.target.strict, self.target.executor = strict, "interpreter" if strict else None
        # The first in strict mode runs on the interpreter, so that the bits of both executors are compared.
        self.target.screens = not strict or (self.native and typed(record) in self.interpreted)
        if strict:
            self.interpreted.add(typed(record))
        try:
            self.target.run([record])
        except KernelError as error:
            if error.kind == "endless":
                self.endless[record.kernel] = error
            raise


def name_tensors(space: Memory, placed: Mapping[str, Placed]) -> None:
    """Have the simulator call tensors by their names, in errors and on tapes."""
    for name, one in placed.items():
        at = space.starts.index(one.whole.pointer)
        described = f"tensor {name}, {one.dtype} {one.tensor.shape}"
        space.regions[at] = replace(
            space.regions[at], name=described, itemsize=one.tensor.itemsize, tensor=name, sizes=one.tensor.shape
        )


def all_of(call: Call) -> tuple[Any, ...]:
    """The same for calls that differ in nothing, contents included."""
    inputs = [(n, None if v is None else (v.shape, v.dtype.str, digest(v))) for n, v in sorted(call.given.items())]
    parts = (call.dims, call.dtypes, call.writes, call.shares, call.flags, call.config)
    described = [sorted(part.items()) for part in parts]
    return (
        call.variant.op,
        call.variant.name,
        call.method,
        call.order,
        call.fill,
        repr((inputs, described, sorted(call.may_change))),
    )


def digest(values: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).digest()


def typed(record: LaunchRecord) -> tuple[Any, ...]:
    """A kernel, whatever its macros, and the types of the tensors that it is launched on."""
    kernel, types = record.kernel, (a.dtype for a in record.args if isinstance(a, DeviceTensor))
    return kernel.source, kernel.name, *types


def way_of(record: LaunchRecord) -> tuple[Any, ...]:
    """The same for launches that differ in addresses and contents alone."""
    tensors = [a.pointer for a in record.args if isinstance(a, DeviceTensor)]
    args = tuple(
        (a.dtype, a.shape, tensors.index(a.pointer)) if isinstance(a, DeviceTensor) else repr(a) for a in record.args
    )
    return record.kernel, args, record.grid, record.block, record.smem, record.cluster
