"""Thread blocks that are resident together: their geometry, shared and local memory, and errors of their threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.sim.faults import FaultAccess, KernelError
from core.sim.machine.geometry import WARP, Shape
from core.sim.machine.lanes import Lanes
from core.sim.machine.wording import Wording
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import WIDE, Array
from core.sim.ptx.syntax import NOWHERE, Instruction


class ResidentBlocks:
    """Thread blocks `numbers` of a grid. smem: bytes of dynamic shared memory of each."""

    def __init__(self, program: Program, words: Wording, shape: Shape, numbers: Array, smem: int) -> None:
        self.program: Program = program
        self.words = words
        self.memory = words.memory
        self.shape: Shape = shape
        self.numbers = numbers  # of the thread blocks, in the grid
        self.threads: int = shape.threads
        self.padded: int = -(-self.threads // WARP) * WARP
        self.dynamic: int = smem
        # A kernel without dynamic shared memory ends with its last variable, not at the next multiple of 16.
        self.shared_end: int = program.shared_size + smem if smem else program.shared_used
        self.stride = -(-self.shared_end // 128) * 128  # bytes of shared memory from one thread block to the next
        self.shared = np.zeros(len(numbers) * self.stride, np.uint8)
        self.shared_views: dict[int, Array] = {}
        self.groups: Sequence[Lanes] = []
        self.remaining = np.full(len(numbers), self.threads)  # threads that have not exited, by block
        self.executed: dict[int, int] = {}  # block of instructions -> times run

    # ------------------------------------------------------------------ memory
    def shared_offsets(self, blocks: Array) -> Array:
        if (blocks == blocks[0]).all():
            return np.array([blocks[0] * self.stride], np.int64)
        return blocks.astype(np.int64) * self.stride

    def shared_view(self, width: int) -> Array:
        if width not in self.shared_views:
            self.shared_views[width] = self.shared.view(WIDE[8 * width])
        return self.shared_views[width]

    def local_memory(self, g: Lanes) -> Array:
        if g.local is None:
            size = -(-max(self.program.local_size, 16) // 16) * 16
            g.local = np.zeros(g.lanes * size, np.uint8)
        return g.local

    @property
    def local_stride(self) -> int:
        return -(-max(self.program.local_size, 16) // 16) * 16

    # ------------------------------------------------------------------ words and errors
    def who(self, g: Lanes, lane: int) -> str:
        """A lane's thread, as text."""
        return self.words.thread(int(self.numbers[g.block[lane]]), int(g.thread[lane]))

    def block_name(self, block: int) -> str:
        """A thread block of the batch, as text."""
        return self.words.block(int(self.numbers[block]))

    def fault(
        self, ins: Instruction, kind: str, message: str, g: Lanes, lane: int, address: int | None = None,
        hint: str = "", before: FaultAccess | None = None, how: str = "",
    ) -> KernelError:  # fmt: skip
        """The error for a lane at an instruction. message: a sentence with {who}, or a predicate. before: the access
        that it clashes with; how: its own, read, write or atomic."""
        who = self.who(g, lane)
        text = message.replace("{who}", who) if "{who}" in message else f"{who}: {message}"
        at = f"address {address:#x}, " if address is not None else ""
        place = int(self.numbers[g.block[lane]]), int(g.thread[lane])
        here = fault_access(*place, ins, how, -1 if address is None else address)
        return KernelError(
            f"kernel {self.program.title}, {self.words.line(ins.location)}: {text}", kind=kind, hint=hint,
            details=f"{at}`{ins.text}`", accesses=((before,) if before is not None else ()) + (here,),
        )  # fmt: skip


def fault_access(block: int, thread: int, ins: Instruction | None, how: str, address: int) -> FaultAccess:
    """An access for an error; ins: None where it is unknown."""
    place = ins.location if ins is not None else NOWHERE
    return FaultAccess(block, thread, place.file, place.line, ins.text if ins is not None else "", how, address)
