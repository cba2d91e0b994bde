"""The table of devices: each kind, before one is opened. Open devices: `core.device`."""

from __future__ import annotations

from core.devices.kind import AUTO, DeviceKind, Pace, choose
from core.devices.residents import CPU, CUDA, RESIDENT, SIM

__all__ = ["AUTO", "CPU", "CUDA", "RESIDENT", "SIM", "DeviceKind", "Pace", "choose"]
