"""Records that screen a launch for strict mode (screen.c): in front of each access, barrier, copy and shuffle.

A launch in which they suspect nothing is one in which strict mode finds nothing; any other is repeated by the
interpreter. launching/screened.py decides which kernels may be screened.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.sim.instructions.atomics import turn_shows
from core.sim.machine.address_space import Memory
from core.sim.machine.geometry import WARP, Shape
from core.sim.native.executor import Linked, Terms, WorkDone, ready_launch, run_screened
from core.sim.native.forms import accessed, address, for_space
from core.sim.native.translation import Translation
from core.sim.native.warp_forms import bytes_read
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.effects import elements
from core.sim.ptx.register_types import TYPES
from core.sim.ptx.syntax import Immediate, Instruction, Operand

READ, WRITE, ATOMIC, COPY, TURN = range(5)  # how memory is accessed, by the numbers of screen.c


def screen(draft: Translation, ins: Instruction) -> None:
    """The records that belong in front of an instruction."""
    for parts in (3, 2, 1):
        if (made := MADE.get(".".join(ins.names[:parts]))) is not None:
            return made(draft, ins)
    return None


def _access(draft: Translation, space: str, operand: Operand, width: int, how: int, lanes: int = WARP) -> None:
    """lanes: those that have an address, from the first on."""
    if space == "local":
        return
    spelled, base, offset = for_space(draft, space, address(draft, operand))
    number, _ = draft.row(f"screen.{space}", lambda row: row == spelled)
    record = draft.put(number, "b", [base], imm=offset, plain=frozenset({1}))
    record.slots[1] = width | how << 8 | lanes << 16


def _load(draft: Translation, ins: Instruction) -> None:
    if spaces.space_of(ins.names) != "param":
        _access(draft, accessed(draft, ins, 1)[0], ins.operands[1], _width(ins, ins.operands[0]), READ)


def _store(draft: Translation, ins: Instruction) -> None:
    if spaces.space_of(ins.names) != "param":
        _access(draft, accessed(draft, ins, 0)[0], ins.operands[0], _width(ins, ins.operands[1]), WRITE)


def _width(ins: Instruction, moved: Operand) -> int:
    return TYPES[ins.names[-1]].bytes * len(elements(moved))


def _atomic(draft: Translation, ins: Instruction) -> None:
    place, how = int(ins.names[0] == "atom"), TURN if turn_shows(ins) else ATOMIC
    _access(draft, spaces.space_of(ins.names), ins.operands[place], TYPES[ins.names[-1]].bytes, how)


def _matrices(draft: Translation, ins: Instruction) -> None:
    count = next(int(n[1:]) for n in ins.names if n in ("x1", "x2", "x4"))
    place, how = (1, READ) if ins.names[0] == "ldmatrix" else (0, WRITE)
    _access(draft, spaces.space_of(ins.names), ins.operands[place], 16, how, 8 * count)


def _copy(draft: Translation, ins: Instruction) -> None:
    size = ins.operands[2]
    assert isinstance(size, Immediate)
    _access(draft, "shared", ins.operands[0], size.bits, COPY)
    _, base, offset = for_space(draft, "global", address(draft, ins.operands[1]))
    record = draft.emit(
        "screen.source", [base, -1, bytes_read(draft, ins, size.bits)], imm=offset, plain=frozenset({1})
    )
    record.slots[1] = size.bits


def _wait(draft: Translation, ins: Instruction) -> None:
    left = ins.operands[0].bits if ins.operands and isinstance(ins.operands[0], Immediate) else 0
    record = draft.emit("screen.wait", [], plain=frozenset({0, 1}))
    record.slots[:2] = [left, int("wait_all" in ins.names)]


def _shuffle(draft: Translation, ins: Instruction) -> None:
    draft.emit(f"screen.shfl.{ins.names[2]}", [draft.source(o, "b32") for o in ins.operands[2:5]])


def _alone(name: str) -> Callable[[Translation, Instruction], None]:
    def made(draft: Translation, ins: Instruction) -> None:
        draft.emit(name, [])

    return made


def _warp(draft: Translation, ins: Instruction) -> None:
    draft.emit("screen.warp", [draft.source(ins.operands[0], "b32")])


MADE: dict[str, Callable[[Translation, Instruction], None]] = {
    "ld": _load, "ldu": _load, "st": _store, "red": _atomic, "atom": _atomic, "ldmatrix": _matrices,
    "stmatrix": _matrices, "cp.async": _copy, "cp.async.commit_group": _alone("screen.commit"),
    "cp.async.wait_group": _wait,
    "cp.async.wait_all": _wait, "shfl.sync": _shuffle, "bar": _alone("screen.barrier"),
    "barrier": _alone("screen.barrier"), "bar.warp": _warp, "griddepcontrol.wait": _alone("screen.waited"),
    "membar": _alone("screen.fence"), "fence": _alone("screen.fence"),
}  # fmt: skip


# --------------------------------------------------------------------------- launches
class _Screen(ctypes.Structure):
    """screen.c's Screen."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("shared", "memory", "unowned", "seen", "heard", "flag", "order")),
        *((name, ctypes.c_int64) for name in ("shared_shift", "memory_shift", "top", "waits", "first_address")),
        *((name, ctypes.c_uint32) for name in ("epoch", "begun", "joins", "arrived", "flags", "hearer")),
        ("barrier", ctypes.c_void_p),
    ]  # fmt: skip


@dataclass(frozen=True)
class Grains:
    """Bytes that are watched together, of shared and of global memory. unowned: by grain of shared memory, whether it
    belongs to no variable. waits: whether the kernel waits for the preceding one."""

    shared: int
    memory: int
    unowned: np.ndarray[tuple[int], np.dtype[np.bool_]]
    waits: bool


def run_clean(
    kernel: Linked, shape: Shape, smem: int, limit: int, memory: Memory, grains: Grains, order: Sequence[int]
) -> WorkDone | None:
    """Run a launch of a kernel that was translated with these records, its thread blocks in this order; None where
    strict mode may find something, or a fault ended it: memory has any contents then."""
    library, cells = kernel.machine.library, len(grains.unowned) + 1
    arrays = [
        np.zeros(cells * library.screen_size(0), np.uint8),
        np.zeros((memory.top // grains.memory + 1) * library.screen_size(0), np.uint8),
        grains.unowned.view(np.uint8),
        np.zeros(-(-shape.threads // WARP) * library.screen_size(1), np.uint8),
        np.zeros(3 * shape.blocks, np.uint32),
        np.zeros(library.screen_size(2), np.uint8),
        np.array(order, np.int32),
    ]
    sizes = grains.shared.bit_length() - 1, grains.memory.bit_length() - 1, memory.top, int(grains.waits)
    here = _Screen(*(a.ctypes.data for a in arrays), *sizes, spaces.PARAMETERS + spaces.PARAMETER_BYTES)
    ready = ready_launch(kernel, shape, smem, Terms(in_order=True, fair=False, limit=limit))
    return run_screened(kernel, memory, ready, ctypes.addressof(here))
