"""Devices have one type: every class of devices has what `Device` says, and docs/devices.md names all of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.device.cpu import CpuDevice
from core.device.cuda import CudaDevice
from core.device.planned import PlannedDevice
from core.device.protocol import Device
from core.device.simulated import SimDevice
from core.devices import DeviceKind
from core.devices.residents import RESIDENTS

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


# how the page writes a field of the table of devices; of a function it has the name
WRITTEN: dict[type, Callable[[Any], str]] = {
    bool: lambda value: "yes" if value else "no",
    tuple: ", ".join,
    str: lambda value: value or "none",
}


def test_the_pages_table_has_the_values_of_the_resident_devices() -> None:
    part = PAGE.read_text("utf-8").partition("\n## DeviceKind\n")[2].partition("\n## ")[0]
    rows = [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in part.splitlines()]
    table = {row[0]: row[2:] for row in rows if row}
    plain = ("name", "runs", "precisions", "compiles", "simulated", "real_time", "default_arch", "place", "numbered")
    for field in plain:
        values = [getattr(kind, field) for kind in RESIDENTS]
        written = [WRITTEN[type(value)](value) for value in values]
        if field == "place":
            written = [kind.place or f"on {kind.name}" for kind in RESIDENTS]
        assert table[field] == written, field


def test_capabilities_differ_where_devices_do() -> None:
    cpu, sim, planned = CpuDevice(), SimDevice(), PlannedDevice("sm_80")
    assert (cpu.compiles, sim.compiles, planned.compiles) == (False, True, True)
    assert (cpu.real_time, sim.real_time, planned.real_time) == (True, False, False)
    assert (cpu.tuned_arch, sim.tuned_arch, planned.tuned_arch) == ("", "", "sm_80")
    assert cpu.unbacked() is cpu and sim.unbacked().arch == sim.arch and cpu.memory() is sim.memory() is None
