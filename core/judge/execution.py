"""A submission's launches on simulated memory, in buffers that give every misstep away.

Each buffer is a region of its own, so that the simulator's bounds are exact; in the wide arrangement buffers are also
far apart and in another order. What a kernel has to write starts as bytes that no computation gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import BuildError
from core.judge.problem import NULL, KernelLaunch
from core.judge.submission import Submission
from core.judge.verdict import Wrong
from core.kernels.arguments import check_signature
from core.kernels.tensors import DeviceTensor
from core.scalars import TYPES, Unrepresentable
from core.sim.faults import Finding
from core.testing.runner import POISON

Array = np.ndarray[Any, Any]
ZONE = 1 << 16  # bytes between two buffers of the wide arrangement, all of them out of bounds


@dataclass
class Execution:
    """All buffers after the launches, as they are stored. findings: of strict mode."""

    buffers: dict[str, Array]
    findings: list[Finding] = field(default_factory=list)

    def same(self, other: Execution, names: Mapping[str, Any]) -> str:
        """ "" where two executions left the same bits in the named buffers; else the first difference in words."""
        for name in names:
            one, two = self.buffers[name], other.buffers[name]
            if one.tobytes() != two.tobytes():
                width = one.dtype.itemsize
                raw = [a.reshape(-1).view(np.uint8).reshape(-1, width) for a in (one, two)]
                off = np.flatnonzero((raw[0] != raw[1]).any(-1))
                at = np.unravel_index(int(off[0]), one.shape)
                return f"{name}{[int(i) for i in at]} and {len(off) - 1:,} more of {one.size:,}"
        return ""


class Workbench:
    """One module of a submission with one set of buffers: addresses and the module's variables last from run to run.

    wide: the buffers in the opposite order, with ZONE bytes between them.
    """

    def __init__(self, submission: Submission, dims: Mapping[str, int], wide: bool = False) -> None:
        self.submission, self.problem, self.dims = submission, submission.problem, dims
        self.simulator = submission.simulator()
        memory, zones = self.simulator.memory, []
        self.tensors: dict[str, DeviceTensor] = {}
        specs = list(self.problem.buffers.items())
        for name, spec in reversed(specs) if wide else specs:
            if wide:
                zones.append(memory.allocate(ZONE, "a red zone"))
            dtype, shape = spec.storage, spec.shape(dims)
            size = int(np.prod(shape)) * dtype.itemsize
            address = memory.allocate(size, f"{name}, {spec.dtype} {shape}", itemsize=dtype.itemsize)
            self.tensors[name] = DeviceTensor(address, shape, spec.dtype)
        for zone in zones:
            memory.free(zone)

    def run(self, contents: Mapping[str, Array], *, strict: bool = False, fill: int = POISON) -> Execution:
        """Put contents into the inputs and `fill` into all else, launch, and read all buffers. Raises KernelError for
        what a kernel may not do, PtxError for what the simulator does not have."""
        memory = self.simulator.memory
        for name, tensor in self.tensors.items():
            spec = self.problem.buffers[name]
            size = int(np.prod(tensor.shape)) * spec.storage.itemsize
            start = 0 if name in self.problem.zeroed else fill
            memory.write(tensor.pointer, contents[name] if name in contents else np.full(size, start, np.uint8))
        findings: list[Finding] = []
        for launch in self.problem.each_launch:
            findings += self._launch(launch, strict)
        return Execution({name: self._read(name) for name in self.tensors}, findings)

    def _launch(self, launch: KernelLaunch, strict: bool) -> list[Finding]:
        args = [self.argument(launch, name, kind) for name, kind in launch.words]
        report = self.simulator.launch(
            launch.kernel, launch.sizes("grid", self.dims), launch.sizes("block", self.dims), args,
            launch.number(launch.smem, self.dims, "smem"), launch.number(launch.cluster, self.dims, "cluster"),
            strict, order="warn",
        )  # fmt: skip
        return report.findings

    def argument(self, launch: KernelLaunch, name: str, kind: str) -> bytes:
        """An argument's bytes: an address, or a number of the scalar's or dim's own type."""
        found = self.value(launch, name, kind)
        if isinstance(found, np.generic):
            return found.tobytes()
        return (found.pointer if found is not None else 0).to_bytes(8, "little")

    def value(self, launch: KernelLaunch, name: str, kind: str) -> DeviceTensor | np.generic | None:
        if name in self.tensors or name == NULL:
            return self.tensors.get(name)
        number = self.problem.scalars[name] if name in self.problem.scalars else TYPES[kind or "i32"](self.dims[name])
        if isinstance(number, Unrepresentable):
            raise BuildError(f"kernel {launch.kernel}, {name} is {number.problem}", hint=f'"{name}:i64" in arguments')
        return number  # type: ignore[no-any-return]

    def check_arguments(self) -> None:
        """Wrong for arguments that are not the kernel's own, as far as its source shows them."""
        for launch in self.problem.each_launch:
            kernel = self.submission.kernel(launch.kernel)
            values: list[Any] = [self.value(launch, name, kind) for name, kind in launch.words]
            try:
                check_signature(kernel, values, f"{launch.kernel}({launch.arguments}", "")
            except BuildError as error:
                takes = ", ".join(self.submission.parameters(launch.kernel) or [])
                raise Wrong(
                    error.message, hint=f"the problem gives {launch.arguments}; the kernel takes {takes}"
                ) from None
            parameters = self.simulator.program(launch.kernel).parameters
            given = [len(self.argument(launch, name, kind)) for name, kind in launch.words]
            sizes = [variable.size for variable, _ in parameters]
            if given != sizes:
                raise Wrong(f"kernel {launch.kernel} takes parameters of {sizes} bytes, and the problem gives {given}",
                            hint=f"in order: {launch.arguments}")  # fmt: skip

    def _read(self, name: str) -> Array:
        tensor, dtype = self.tensors[name], self.problem.buffers[name].storage
        size = int(np.prod(tensor.shape)) * dtype.itemsize
        return self.simulator.memory.read(tensor.pointer, size).view(dtype).reshape(tensor.shape)
