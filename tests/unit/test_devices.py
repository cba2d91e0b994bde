"""Devices have one type: every class of devices has what `Device` says, and docs/devices.md names all of it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from core.device.cpu import CpuDevice
from core.device.cuda import CudaDevice
from core.device.planned import PlannedDevice
from core.device.protocol import Device
from core.device.simulated import SimDevice
from core.devices import DeviceKind

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"
MEMBERS = {name for name in {*vars(Device), *Device.__annotations__} if not name.startswith("_")}


@pytest.mark.parametrize(
    "device", [CpuDevice(), SimDevice(), PlannedDevice()], ids=lambda device: type(device).__name__
)
def test_a_device_has_every_field_and_method_of_its_type(device: Device) -> None:
    assert not {name for name in MEMBERS if not hasattr(device, name)}


def test_the_class_for_gpus_has_them_too() -> None:
    assert {name for name in MEMBERS if not hasattr(CudaDevice, name)} <= {"arch"}  # which is the chip's


def test_the_page_names_every_field_and_method() -> None:
    rows = [line.split("|")[1] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    fields = {field.name for field in dataclasses.fields(DeviceKind)}
    assert {name for row in rows for name in re.findall(r"`(\w+)(?:\(.*?\))?`", row)} == MEMBERS | fields


def test_capabilities_differ_where_devices_do() -> None:
    cpu, sim, planned = CpuDevice(), SimDevice(), PlannedDevice("sm_80")
    assert (cpu.compiles, sim.compiles, planned.compiles) == (False, True, True)
    assert (cpu.real_time, sim.real_time, planned.real_time) == (True, False, False)
    assert (cpu.tuned_arch, sim.tuned_arch, planned.tuned_arch) == ("", "", "sm_80")
    assert cpu.unbacked() is cpu and sim.unbacked().arch == sim.arch and cpu.memory() is sim.memory() is None
