"""Errors of simulated kernels. Each names kernel, source line, thread and element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.errors import BuildError, DeviceError

# kind of a KernelError or a Finding -> the fault. docs/checks.md describes those that strict mode detects
KINDS = {
    "arguments": "arguments that do not fit the kernel's parameters",
    "launch limits": "a launch beyond the chip's limits",
    "out of bounds": "an access outside of each buffer and variable",
    "misaligned": "an address that is not a multiple of the access's size",
    "uninitialised": "a read of shared memory that nothing has written",
    "race": "two accesses to one element, one of them a write, without an order",
    "order": "a result that depends on the order of threads",
    "divergent": "a barrier that a part of the threads reaches",
    "barrier never completes": "a barrier whose other threads have exited",
    "barrier count": "a barrier whose threads expect different counts",
    "cluster barrier": "a wait without an arrival before it",
    "deadlock": "threads that wait for an event that never comes",
    "endless": "a kernel that does not end within the limit of branches",
    "not named": "a lane that its own mask does not name",
    "member absent": "a lane of a mask that does not arrive",
    "divergent reduction": "lanes that reach a reduction with different barriers",
    "shuffle": "a shuffle's value from a lane that gives none",
    "swizzle": "a tensor copy whose swizzle does not fit its reader",
    "in flight": "an access to memory that an asynchronous copy still uses",
    "early access": "an access to global memory before griddepcontrol.wait",
    "proxy fence": "a bulk read of stores without fence.proxy.async",
    "wgmma fence": "a wgmma without wgmma.fence",
    "wgmma registers": "registers of a wgmma before its wait",
    "exit in flight": "an exit before a copy or a peer is done",
    "mbarrier": "an mbarrier that is not initialised, misaligned or overrun",
    "tensor map": "a tensor copy without a map, or beyond its map",
    "call": "an indirect call to an address that is not a function",
    "assert": "a failed assert",
    "trap": "a kernel that stops itself",
    "free": "a free of an address that malloc did not return, or twice",
    "tape": "a tape that is longer than its limit",
}


class PtxError(BuildError):
    """PTX that the simulator cannot read: an unknown opcode or a form of one that it does not have."""


@dataclass(frozen=True)
class FaultAccess:
    """An access of a faulty kernel: by a thread of a thread block of the grid, at an instruction of a source line.

    how: read, write or atomic; "" where nothing is accessed. address: a byte of global memory, or of the shared memory
    of the thread block; -1 where it is unknown.
    """

    block: int
    thread: int
    file: str
    line: int
    ptx: str
    how: str = ""
    address: int = -1


class KernelError(DeviceError):
    """A kernel that did something illegal. `kind` is a short fixed word for tests and listings, such as "race".

    details: the address and the PTX instruction, which the message leaves out. accesses: where it happened, last, and
    before it the access that it clashes with. tape: of a taped launch until then, else None.
    """

    tape: Any = None  # a core.sim.tape.Tape

    def __init__(
        self, message: str, *, kind: str, hint: str = "", details: str = "", accesses: tuple[FaultAccess, ...] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.details = details
        self.accesses = accesses

    def within(self, where: str) -> KernelError:
        """The same error of a launch that `where` names."""
        error = KernelError(
            f"{where}: {self.message}", kind=self.kind, hint=self.hint, details=self.details, accesses=self.accesses
        )
        error.tape = self.tape
        return error


@dataclass(frozen=True)
class Finding:
    """A finding of strict mode that does not stop the kernel. `kind` as of a KernelError."""

    kind: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message
