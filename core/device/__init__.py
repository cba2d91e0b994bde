"""The devices, by name. Each allocates, records launchers, replays them, and has fill, copy, add and dot."""

from __future__ import annotations

from core.device.cpu import CpuDevice
from core.errors import DeviceError, did_you_mean

DEVICES = {"cpu": CpuDevice}


def open_device(name: str) -> CpuDevice:
    """The device called `name`. Raises DeviceError for one that this version does not have."""
    if name not in DEVICES:
        raise DeviceError(
            f'there is no device "{name}" in this version{did_you_mean(name, DEVICES)}',
            hint=f"--device takes {', '.join(DEVICES)} here",
        )
    return DEVICES[name]()
