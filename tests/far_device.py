"""A device whose tensors may have more than 2^31 elements: memory exists where a kernel touches it."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.device.launch import LaunchRecord
from core.device.simulated import SimDevice
from core.kernels.arguments import bytes_of
from core.sim.launching.scheduler import Order, Scheduler
from core.sim.launching.simulator import Simulator
from core.sim.launching.thread_order import facts_of
from core.sim.machine.address_space import ALIGNMENT, Memory, Region
from core.sim.machine.geometry import Shape
from core.sim.machine.wording import Wording
from core.sim.resident import Batch

SPACE = 1 << 39  # bytes of address space, of which only touched pages take memory


class Sparse(Memory):
    """Simulated memory of `SPACE` zero bytes: a sparse file, of which a page exists from its first access on."""

    def __init__(self) -> None:
        super().__init__()
        with tempfile.TemporaryFile() as file:
            file.truncate(SPACE)
            self.bytes = np.frombuffer(mmap.mmap(file.fileno(), SPACE), np.uint8)

    def allocate(self, nbytes: int, name: str = "", align: int = ALIGNMENT, itemsize: int = 1) -> int:
        start = -(-self.top // align) * align
        self.top = start + nbytes + ALIGNMENT
        assert self.top <= SPACE, f"{name}: {self.top:,} bytes"
        self.regions.append(Region(name or f"memory of {nbytes} bytes", start, nbytes, itemsize))
        self.starts.append(start)
        return start


class FarDevice(SimDevice):
    """Runs the thread blocks at the end of a grid's longest axis: those of the last `share` of it, and one more."""

    def __init__(self, share: float, more: int) -> None:
        super().__init__()
        self.space = Sparse()
        self.share, self.more = share, more

    def _run(self, record: LaunchRecord) -> None:
        packed = [bytes_of(argument) for argument in record.args]
        numbers, shape = self.numbers(record.grid), Shape(record.grid, record.block)
        self.run_blocks(self._simulators[record.kernel], record.kernel.name, packed, shape, numbers, record.smem)

    def run_blocks(
        self,
        simulator: Simulator,
        kernel: str,
        args: Sequence[bytes],
        shape: Shape,
        numbers: np.ndarray[Any, Any],
        smem: int = 0,
    ) -> None:
        """Run the thread blocks of these numbers."""
        program = simulator.program(kernel)
        simulator._pass_arguments(facts_of(program), args)
        words = Wording(program, self.space, shape, simulator.sources, smem)
        batch = Batch(program, words, shape, numbers, smem)
        with np.errstate(all="ignore"):
            Scheduler(batch).run(Order())

    def numbers(self, grid: Sequence[int]) -> np.ndarray[Any, Any]:
        """The numbers of the thread blocks that run."""
        axis = int(np.argmax(grid))
        last = min(int(np.ceil(self.share * grid[axis])) + 1 + self.more, grid[axis])
        ranges = [np.arange(n - last if i == axis else 0, n) for i, n in enumerate(grid)]
        x, y, z = np.meshgrid(*ranges, indexing="ij")
        return np.sort((x + grid[0] * (y + grid[1] * z)).reshape(-1))


C = 40  # columns of a row
ROWS = 2**32 // C + 9  # of rows of C elements: past 2^32 of them
