"""Launches that run in strict mode after the sub-check that made them: with the memory that they had then.

The op check knows which launches of a kernel show the most only when it has seen them all (strict_choice.py).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.device.launch import LaunchRecord
from core.kernels.tensors import DeviceTensor, TensorMap
from core.sim.faults import KernelError
from core.sim.machine.address_space import Memory
from core.testing.strict_choice import Shown


class Snapshot:
    """Simulated memory at a time: its contents and its regions."""

    def __init__(self, space: Memory) -> None:
        self.space, self.bytes = space, space.bytes[: space.top].copy()
        self.heap = list(space.heap.blocks) if space.heap is not None else None
        self.regions, self.starts, self.top = list(space.regions), list(space.starts), space.top

    def restore(self) -> None:
        """The earlier contents, in the present regions."""
        self.space.bytes[: len(self.bytes)] = self.bytes
        if self.space.heap is not None and self.heap is not None:
            self.space.heap.restore(self.heap)

    def return_to(self) -> None:
        """The earlier contents and regions. For memory without a heap."""
        self.space.bytes[: len(self.bytes)] = self.bytes
        self.space.regions, self.space.starts = list(self.regions), list(self.starts)
        self.space.top, self.space.last, self.space.bounds_kept = self.top, self.regions[0], None

    def hold(self, space: Memory, record: LaunchRecord) -> None:
        """Raise where memory has other contents now: the launch has run twice, in two orders."""
        different = np.flatnonzero(space.bytes[: len(self.bytes)] != self.bytes)
        if different.size:
            raise KernelError(
                f"{record.where}: {different.size} bytes differ between a run in fast mode and one in strict mode, the "
                f"first in {space.element(int(different[0]))}",
                kind="order",
                hint="one writer for each address, and turns in a fixed order, such as that of the blocks' numbers",
            )


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile: tensors of runs that failed would free regions of an earlier time. A
    collection between two launches would also cost as much as a short launch."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def at_the_time(before: Snapshot) -> Iterator[None]:
    """Memory as it was, with its regions, and then as it is now; `uncollected`."""
    now = Snapshot(before.space)
    before.return_to()
    try:
        yield
    finally:
        now.return_to()


@dataclass
class LateLaunch:
    """A launch that has run in fast mode, with the memory before and after it. case, dtype: of its trial."""

    record: LaunchRecord
    shown: Shown
    before: Snapshot
    after: Snapshot
    case: str = ""
    dtype: str = ""


def unowned(record: LaunchRecord) -> LaunchRecord:
    """The launch at the same addresses; it keeps no memory from being freed."""
    return replace(record, args=tuple(_unowned(argument) for argument in record.args))


def _unowned(argument: Any) -> Any:
    if isinstance(argument, TensorMap):
        return replace(argument, tensor=_unowned(argument.tensor))
    return replace(argument, base=None) if isinstance(argument, DeviceTensor) else argument
