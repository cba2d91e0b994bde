"""What a simulated kernel can do wrong. Every error names kernel, source line, thread block, thread and address."""

from __future__ import annotations

from core.errors import BuildError, DeviceError


class PtxError(BuildError):
    """PTX that the simulator cannot read: an unknown opcode or a form of one that it does not have."""


class KernelError(DeviceError):
    """A kernel that did something illegal. `kind` is a short fixed word for tests and listings, such as "race"."""

    def __init__(self, message: str, *, kind: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
