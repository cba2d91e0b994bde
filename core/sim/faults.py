"""Errors of simulated kernels. Each names kernel, source line, thread and element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.errors import BuildError, DeviceError


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
    before it the access that it clashes with. tape: of a taped launch, what ran until then, else None.
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
