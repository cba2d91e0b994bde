"""A planned GPU without hardware: launchers are recorded and their kernels compiled for its architecture; nothing runs.

For plans, listings and checks of the compiler on any machine. Tensors have addresses and no contents: uploads
are dropped, and downloads are zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.device.launch import Host, LaunchRecord, Recorded
from core.device.recording import KernelDevice
from core.dtypes import NARROW, NUMPY
from core.errors import BuildError
from core.kernels.chips import FITTING, chip_of, launch_problems, runs_on
from core.kernels.nvrtc import Kernel, Resources, compile_all
from core.kernels.tensors import DeviceTensor
from core.op import Variant

Array = np.ndarray[Any, Any]
SMS = 108  # multiprocessors as launchers see them
FIRST = 1 << 32  # where its addresses start


@dataclass(frozen=True)
class PlannedMemory:
    """An allocation of no memory."""

    pointer: int
    nbytes: int


class PlannedDevice(KernelDevice):
    """Records for `arch`. `records`: the launches of `run`, in order. `scratch_bytes`: the bytes that nested launches
    took in addition to the arena."""

    name = "cuda"

    def __init__(self, arch: str = "sm_90a", sms: int = SMS) -> None:
        self.arch, self.sms = arch, sms
        self.chip = chip_of(arch)
        self.scratch_bytes = 0
        self.records: list[LaunchRecord] = []
        self._top = FIRST

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.chip.precisions

    def unbacked(self) -> PlannedDevice:
        """A device like this one, for another plan."""
        return unbacked(self)

    def describe(self) -> str:
        return f"cuda, planned for {self.arch}: kernels are compiled, nothing runs"

    def can_run(self, variant: Variant) -> str | None:
        """Why a variant's kernels could not run on this architecture; None when they could."""
        return None if runs_on(variant.arch, self.arch) else f"it needs {variant.arch}, and the plan is for {self.arch}"

    def allocate(self, nbytes: int) -> PlannedMemory:
        memory = PlannedMemory(self._top, nbytes)
        self._top += (nbytes // 256 + 1) * 256
        return memory

    def upload(self, tensor: DeviceTensor, values: Any) -> None:
        """No-op: planned tensors have no storage."""

    def download(self, tensor: DeviceTensor) -> Array:
        kind = np.dtype(np.float32) if tensor.dtype in NARROW else NUMPY[tensor.dtype]
        return np.zeros(tensor.shape, kind)

    def synchronize(self) -> None:
        """No-op: no launch runs asynchronously."""

    @property
    def host(self) -> Host:
        return Host(self.sms, None, self._zeros, chip=self.chip)

    def _zeros(self, nbytes: int) -> DeviceTensor:
        self.scratch_bytes += nbytes
        return self.tensor(self.allocate(nbytes), 0, (nbytes,), "u8")

    def run(self, commands: Sequence[Recorded]) -> None:
        """Keeps the launches; `prepare` compiles them."""
        self.records += launches_among(commands)

    def prepare(self, commands: Sequence[Recorded]) -> dict[Kernel, Resources]:
        """Compile the kernels of the commands for `arch`; the compiler's report on each. Raises BuildError, also
        for a launch that the chip would refuse."""
        launches = launches_among(commands)
        kernels = list(dict.fromkeys(launch.kernel for launch in launches))
        compiled = compile_all((kernel, self.arch) for kernel in kernels)
        resources = {kernel: made.of(kernel) for kernel, made in zip(kernels, compiled, strict=True)}
        for launch in launches:
            self._check(launch, resources[launch.kernel])
        return resources

    def _check(self, launch: LaunchRecord, used: Resources) -> None:
        problems = launch_problems(self.chip, used.registers, used.shared, launch.block, launch.smem, launch.cluster)
        if problems:
            raise BuildError(f"{launch.where} {'; '.join(problems)} on {self.arch}", hint=FITTING)


def unbacked(device: KernelDevice) -> PlannedDevice:
    """A device like `device` without memory, which counts allocations."""
    twin = PlannedDevice(device.arch, device.host.sms)
    twin.model = device.model
    return twin


def launches_among(commands: Sequence[Recorded]) -> list[LaunchRecord]:
    """Without a library's calls."""
    return [command for command in commands if isinstance(command, LaunchRecord)]


def threads_of(record: LaunchRecord) -> int:
    """Threads of one thread block."""
    return math.prod(record.block)
