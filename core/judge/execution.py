"""A submission's launches on simulated memory, in buffers that reveal every wrong access.

Each buffer is a region of its own, so that the simulator's bounds are exact; in the wide arrangement buffers are also
far apart and in another order. Elements that a kernel must write start as bytes that no computation gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BuildError
from core.judge.problem import NULL, KernelLaunch
from core.judge.submission import Submission
from core.judge.verdict import Wrong
from core.kernels.arguments import check_signature
from core.kernels.nvrtc import Kernel
from core.kernels.tensors import DeviceTensor
from core.kernels.unrepresentable import problem_of
from core.scalars import TYPES, Unrepresentable
from core.sim.counting import Counts
from core.sim.faults import Finding
from core.testing.runner import POISON

Array = np.ndarray[Any, Any]
ZONE = 1 << 16  # bytes between two buffers of the wide arrangement, all of them out of bounds


@dataclass
class Execution:
    """All buffers after the launches, as they are stored. findings: of strict mode. counts: of a counted run."""

    buffers: dict[str, Array]
    findings: list[Finding] = field(default_factory=list)
    counts: Counts | None = None

    def same(self, other: Execution, names: Mapping[str, Any]) -> str:
        """ "" where two executions left the same bits in the named buffers; else the first difference."""
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
    """A submission's file with one set of buffers: addresses and the file's variables last from run to run.

    wide: the buffers in the opposite order, with ZONE bytes between them.
    """

    def __init__(self, submission: Submission, dims: Mapping[str, int], wide: bool = False) -> None:
        self.submission, self.problem, self.dims = submission, submission.problem, dims
        self.file, self.specs = submission.load(), self.problem.buffers
        self.arrays = {name: np.empty(spec.shape(dims), spec.storage) for name, spec in self.specs.items()}
        memory, zones = self.file.memory, []
        for name in reversed(self.arrays) if wide else self.arrays:
            if wide:
                zones.append(memory.allocate(ZONE, "a red zone"))
            self.file.buffers.address(self.arrays[name], f"argument {name}")
        for zone in zones:
            memory.free(zone)

    def run(
        self,
        contents: Mapping[str, Array],
        *,
        strict: bool = False,
        fill: int = POISON,
        executor: str | None = None,
        count: bool = False,
    ) -> Execution:
        """Put contents into the inputs and `fill` into all else, launch, and read all buffers. count, which needs
        strict=False: count the work too. Raises KernelError for a kernel that is at fault, PtxError for instructions
        that the simulator lacks."""
        for name, array in self.arrays.items():
            if name in contents:
                array[...] = contents[name]
            else:
                array.reshape(-1).view(np.uint8)[...] = 0 if name in self.problem.zeroed else fill
        findings: list[Finding] = []
        counts = Counts() if count else None
        for launch in self.problem.each_launch:
            args = [self.argument(launch, name, kind) for name, kind in launch.words]
            sizes = (launch.sizes("grid", self.dims), launch.sizes("block", self.dims))
            smem, cluster = (launch.number(getattr(launch, of), self.dims, of) for of in ("smem", "cluster"))
            report = self.file.run(
                launch.kernel, *sizes, args, smem, cluster, strict, order="warn", executor=executor, count=count
            )  # fmt: skip
            findings += report.findings
            if counts is not None and report.counts is not None:
                counts += report.counts.total
        return Execution({name: array.copy() for name, array in self.arrays.items()}, findings, counts)

    def argument(self, launch: KernelLaunch, name: str, kind: str) -> Array | np.generic | None:
        """A buffer, or a number of the scalar's or dim's own type."""
        if name in self.arrays or name == NULL:
            return self.arrays.get(name)
        number = self.problem.scalars[name] if name in self.problem.scalars else TYPES[kind or "i32"](self.dims[name])
        if isinstance(number, Unrepresentable):
            raise BuildError(
                f"kernel {launch.kernel}, {name} is {problem_of(number)}", hint=f'"{name}:i64" in arguments'
            )
        return number  # type: ignore[no-any-return]

    def check_arguments(self) -> None:
        """Wrong for arguments that are not the kernel's own: their number, sizes, and types as far as the source shows
        them. Raises BuildError for a kernel that the file lacks."""
        for launch in self.problem.each_launch:
            arguments = [self.argument(launch, name, kind) for name, kind in launch.words]
            takes = ", ".join(self.submission.parameters(launch.kernel))
            hint = f"the problem gives {launch.arguments}" + (f"; the kernel takes {takes}" if takes else "")
            sizes = [variable.size for variable, _ in self.file.program(launch.kernel).parameters]
            try:
                kernel = Kernel(Path(self.submission.name), launch.kernel, text=self.submission.text)
                check_signature(
                    kernel, [self.typed(one) for one in arguments], f"{launch.kernel}({launch.arguments}", ""
                )
            except BuildError as error:
                raise Wrong(error.message, hint=hint) from None
            bytes_given = [8 if one is None or isinstance(one, np.ndarray) else one.nbytes for one in arguments]
            if bytes_given != sizes:
                problem = (
                    f"kernel {launch.kernel} takes parameters of {sizes} bytes, and the problem gives {bytes_given}"
                )
                raise Wrong(problem, hint=hint)

    def typed(self, argument: Array | np.generic | None) -> Any:
        """A buffer as a tensor of its element type, anything else as it is."""
        if not isinstance(argument, np.ndarray):
            return argument
        name = next(name for name, array in self.arrays.items() if array is argument)
        return DeviceTensor(0, argument.shape, self.specs[name].dtype)
