"""Launches on the machine: a kernel's records, its memory and its grid to C; a fault back as the KernelError that the
interpreter would raise."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core import signals
from core.sim.machine.address_space import Memory
from core.sim.machine.geometry import Shape
from core.sim.machine.wording import Wording
from core.sim.native.faulted import BEFORE, MachineFault, error
from core.sim.native.printing import CALLBACK, Printer
from core.sim.native.stored import KernelFacts
from core.sim.native.toolchain import Machine
from core.sim.native.translation import Code
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.program import Program
from core.threads import cores

STOPPED = 1
LOOK = 100  # milliseconds between looks for signals
KEPT = 64  # prepared launches of a kernel
CONSTANT = np.dtype([("offset", "<u4"), ("wide", "<u2"), ("bytes", "<u2"), ("value", "<u8")])
SPECIAL = np.dtype([("offset", "<u4"), ("wide", "<u4"), ("kind", "<u4"), ("axis", "<u4")])


class _Fault(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_uint32), ("lane", ctypes.c_uint32),
                *((name, ctypes.c_int64) for name in ("at", "block", "thread")),
                *((name, ctypes.c_uint64) for name in ("address", "x", "y"))]  # fmt: skip


class _Launch(ctypes.Structure):
    """machine.h's Launch."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            "ops", "some", "lists", "memory", "starts", "ends", "constants", "specials", "fresh")),
        *((name, ctypes.c_int64) for name in (
            "count", "entry", "regions", "constants_count", "specials_count", "fresh_count", "windows", "registers")),
        ("grid", ctypes.c_int64 * 3), ("block", ctypes.c_int64 * 3),
        *((name, ctypes.c_int64) for name in (
            "blocks", "threads", "cluster", "shared_end", "dynamic", "total_shared", "local", "limit", "workers",
            "together", "fair")),
        *((name, ctypes.c_void_p) for name in ("ran", "lanes", "looped")),
        *((name, ctypes.c_int64) for name in ("marks", "loops")),
        ("print", CALLBACK), ("screen", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("next", "failed", "stop", "running")),
        ("pool", ctypes.c_void_p), ("fault", _Fault),
    ]  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """The order of thread blocks. in_order: one after the other; fair: all at once, taking turns; limit: branches of
    one."""

    in_order: bool
    fair: bool
    limit: int


@dataclass(frozen=True)
class ReadyLaunch:
    """A launch without its memory and arguments, kept for the next one like it. image: the bytes of its _Launch; alone:
    whether one thread runs it."""

    shape: Shape
    terms: Terms
    image: bytes
    alone: bool


@dataclass
class Linked:
    """A translated kernel whose records hold the addresses of their functions. launches: those made ready, by whatever
    distinguishes them for the caller."""

    machine: Machine
    facts: KernelFacts
    code: Code
    program: Callable[[], Program]  # linked when a fault or a report wants it
    ops: np.ndarray[Any, Any]
    some: np.ndarray[Any, Any]
    constants: np.ndarray[Any, Any]
    specials: np.ndarray[Any, Any]
    fresh: np.ndarray[Any, Any]
    addresses: dict[str, int] = field(init=False)
    launches: dict[Hashable, ReadyLaunch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = {
            "ops": self.ops, "some": self.some, "lists": self.code.lists, "constants": self.constants,
            "specials": self.specials, "fresh": self.fresh,
        }  # fmt: skip
        self.addresses = {name: array.ctypes.data for name, array in arrays.items()}

    def keep(self, key: Hashable, ready: ReadyLaunch) -> ReadyLaunch:
        if len(self.launches) >= KEPT:
            self.launches.clear()
        self.launches[key] = ready
        return ready


def linked(
    machine: Machine, facts: KernelFacts, code: Code, globals_at: dict[str, int], program: Callable[[], Program]
) -> Linked:
    """globals_at: addresses of device variables, by symbol."""
    ops, some = code.ops.copy(), np.zeros(len(code.ops), np.uint64)
    machine.library.machine_link(ops.ctypes.data, some.ctypes.data, len(ops))
    values = [v if isinstance(v, int) else globals_at[v[0]] + v[1] for _, _, v in code.constants]
    numbers = [(at, wide, 0, v & 0xFFFFFFFFFFFFFFFF) for (at, wide, _), v in zip(code.constants, values, strict=True)]
    read = [(at, wide, size, address) for at, wide, address, size in code.parameters]
    constants = np.array([*numbers, *read], CONSTANT)
    return Linked(
        machine, facts, code, program, ops, some, constants, np.array(code.specials, SPECIAL),
        np.array(code.fresh, np.uint32).reshape(-1, 2),
    )  # fmt: skip


@dataclass
class WorkDone:
    """The work of a marked kernel: by block of instructions the warps and lanes that ran it, by branch back the most
    times
    that a warp took it."""

    ran: np.ndarray[Any, Any]
    lanes: np.ndarray[Any, Any]
    looped: np.ndarray[Any, Any]


def run(
    kernel: Linked, words: Callable[[], Wording], memory: Memory, ready: ReadyLaunch, output: Callable[[str], object]
) -> WorkDone | None:
    """Run a launch to its end; its counts where the kernel is marked. output: the place of its printf. Raises
    KernelError."""
    launch = _Launch.from_buffer_copy(ready.image)
    launch.memory, launch.starts, launch.ends, launch.regions = memory.pointers()
    work = _counted(kernel, launch) if kernel.code.marks else None
    if kernel.facts.prints:
        printer = Printer(memory, launch.local, launch.shared_end)
        launch.print = printer.callback()
        try:
            _wait(kernel.machine, launch, ready.alone)
        finally:
            if printer.texts:
                output("".join(printer.texts))
    else:
        _wait(kernel.machine, launch, ready.alone)
    kind = launch.fault.kind
    if kind == STOPPED:
        raise MemoryError(f"kernel {kernel.facts.name}: the machine found no memory for its thread blocks")
    if kind:
        raise error(words(), _fault_of(kernel, launch.fault, ready.terms.limit))
    return work


def run_screened(kernel: Linked, memory: Memory, ready: ReadyLaunch, screen: int) -> WorkDone | None:
    """Run a launch with records that screen it, on this thread; its counts, None after any fault. screen: the address
    of screen.c's Screen."""
    launch = _Launch.from_buffer_copy(ready.image)
    launch.memory, launch.starts, launch.ends, launch.regions = memory.pointers()
    launch.screen = screen
    work = _counted(kernel, launch)
    _wait(kernel.machine, launch, alone=True)
    if launch.fault.kind == STOPPED:
        raise MemoryError(f"kernel {kernel.facts.name}: the machine found no memory for its thread blocks")
    return None if launch.fault.kind else work


def _counted(kernel: Linked, launch: _Launch) -> WorkDone:
    marks, loops = len(kernel.code.marks), len(kernel.code.loops)
    work = WorkDone(np.zeros(marks, np.uint64), np.zeros(marks, np.uint64), np.zeros(loops, np.uint32))
    launch.marks, launch.loops = marks, loops
    launch.ran, launch.lanes, launch.looped = (a.ctypes.data for a in (work.ran, work.lanes, work.looped))
    return work


def ready_launch(kernel: Linked, shape: Shape, smem: int, terms: Terms) -> ReadyLaunch:
    """A launch with `smem` bytes of dynamic shared memory."""
    image = _image(kernel, shape, smem, terms)
    return ReadyLaunch(shape, terms, bytes(image), terms.in_order or terms.fair or image.blocks <= image.together)


def _image(kernel: Linked, shape: Shape, smem: int, terms: Terms) -> _Launch:
    facts, code = kernel.facts, kernel.code
    shared_end = facts.shared_size + smem if smem else facts.shared_used
    return _Launch(
        **kernel.addresses, count=len(kernel.ops), entry=code.entry, constants_count=len(kernel.constants),
        specials_count=len(kernel.specials), fresh_count=len(kernel.fresh), windows=code.windows, registers=code.size,
        grid=(ctypes.c_int64 * 3)(*shape.grid), block=(ctypes.c_int64 * 3)(*shape.block), blocks=shape.blocks,
        threads=shape.threads, cluster=shape.cluster, shared_end=shared_end, dynamic=smem,
        total_shared=shared_end - facts.zones if smem else facts.static_shared + spaces.SHARED_START,
        local=-(-facts.local_size // 16) * 16, limit=terms.limit, workers=1,
        together=shape.blocks if terms.fair else shape.cluster, fair=int(terms.fair),
    )  # fmt: skip


def _wait(machine: Machine, launch: _Launch, alone: bool) -> None:
    """Run a launch on this thread, and on others where it is long, with safe points; one that is given up is stopped
    first."""
    library, at = machine.library, ctypes.addressof(launch)
    begun = library.machine_start(at)
    if begun > 0:
        return
    if begun < 0:
        raise MemoryError("the system gives no memory to run a kernel in")
    try:
        if not alone:
            launch.workers = max(1, min(cores(), launch.blocks // launch.together))
        while not library.machine_run(at, LOOK):
            signals.check()
    except BaseException:
        library.machine_stop(at)
        while not library.machine_run(at, LOOK):
            pass
        raise


def _fault_of(kernel: Linked, f: _Fault, limit: int) -> MachineFault:
    instructions = kernel.program().instructions
    pc = int(kernel.code.pcs[min(f.at, len(kernel.code.pcs) - 1)])
    if f.kind in BEFORE:
        pc = int(kernel.code.pcs[f.at - 1])
    ins = instructions[min(pc, len(instructions) - 1)]
    address = f.address - (1 << 64) if f.address >> 63 else f.address
    return MachineFault(f.kind, ins, f.thread, f.block, address, f.x, f.y, limit)
