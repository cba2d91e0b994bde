"""The devices, by name. Each allocates, records launchers, replays them, and has fill, copy, add and dot."""

from __future__ import annotations

from importlib import import_module

from core.device.protocol import Device
from core.errors import DeviceError, did_you_mean

# name -> module of its class; imported when it is opened, since drivers and compilers are slow to load
DEVICES = {
    "cpu": "core.device.cpu:CpuDevice",
    "cuda": "core.device.cuda:CudaDevice",
    "sim": "core.device.simulated:SimDevice",
}


def open_device(name: str) -> Device:
    """The device called `name`. Raises DeviceError for one that this version does not have."""
    if name not in DEVICES:
        raise DeviceError(
            f'there is no device "{name}" in this version{did_you_mean(name, DEVICES)}',
            hint=f"--device takes {', '.join(DEVICES)} here",
        )
    module, _, attribute = DEVICES[name].partition(":")
    opened: Device = getattr(import_module(module), attribute)()
    return opened
