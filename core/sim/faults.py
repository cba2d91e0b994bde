"""What a simulated kernel can do wrong. Every error names kernel, source line, thread and element."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import BuildError, DeviceError


class PtxError(BuildError):
    """PTX that the simulator cannot read: an unknown opcode or a form of one that it does not have."""


class KernelError(DeviceError):
    """A kernel that did something illegal. `kind` is a short fixed word for tests and listings, such as "race".

    details: the address and the PTX instruction, which the message leaves out.
    """

    def __init__(self, message: str, *, kind: str, hint: str = "", details: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.details = details


@dataclass(frozen=True)
class Finding:
    """What strict mode lets pass and has to say. `kind` as of a KernelError."""

    kind: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message
