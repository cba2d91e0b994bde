"""The devices that come with corelm, through the same hook as a plugin's."""

from __future__ import annotations

from core.devices.kind import DeviceKind

CPU = DeviceKind(
    "cpu",
    runs="cpu",
    precisions=("f32", "f64"),
    opener="core.device.cpu:CpuDevice",
    pace="core.measure.estimate:cpu_pace",
    place="on the cpu",
)
CUDA = DeviceKind(
    "cuda",
    runs="cuda",
    precisions=("f32", "bf16", "fp16"),
    opener="core.device.cuda:CudaDevice",
    detector="core.devices.nvidia:nvidia_device",
    compiles=True,
    planner="core.device.planned:PlannedDevice",
    default_arch="sm_90a",
    numbered=True,
)
SIM = DeviceKind(
    "sim",
    runs="cuda",
    precisions=("f32", "bf16", "fp16"),
    opener="core.device.simulated:SimDevice",
    compiles=True,
    simulated=True,
    real_time=False,
    pace="core.measure.simulator_pace:simulated_pace",
    place="in the simulator",
)
RESIDENTS = (CPU, CUDA, SIM)
RESIDENT = {kind.name: kind for kind in RESIDENTS}


def core_devices() -> list[DeviceKind]:
    return list(RESIDENTS)
