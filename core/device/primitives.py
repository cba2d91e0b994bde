"""The device's own launches, on a GPU and in the simulator: fill, copy, add, scale_by, and the objective's sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core.device.launch import LaunchRecord
from core.dtypes import C_TYPES
from core.errors import BuildError
from core.expr import cdiv
from core.kernels.nvrtc import Kernel
from core.kernels.tensors import DeviceTensor

SOURCE = Path(__file__).with_name("primitives.cu")
THREADS, EACH = 256, 4  # EACH as in primitives.cu
DOT_THREADS = 512


def fill(target: DeviceTensor, value: float) -> LaunchRecord:
    """target = value."""
    return _elements("fill", target, target, np.float32(value))


def copy(target: DeviceTensor, source: DeviceTensor) -> LaunchRecord:
    """target = source, converted to target's type."""
    return _elements("copy", target, source, source)


def add(target: DeviceTensor, source: DeviceTensor) -> LaunchRecord:
    """target += source, summed in f32 and rounded to target's type."""
    return _elements("add", target, source, source)


def scale_by(target: DeviceTensor, control: DeviceTensor) -> LaunchRecord:
    """target *= the loss scale in the control record."""
    return _elements("scale_by", target, target, control)


def dot(control: DeviceTensor, slot: int, a: DeviceTensor, b: DeviceTensor) -> LaunchRecord:
    """control[slot] += sum(a * b) / the loss scale in the control record, in f64 and in a fixed order."""
    _same_size("dot", a, b)
    args = (control, np.int32(slot), a, b, np.uint64(a.size))
    return LaunchRecord(_kernel("dot", a, b), args, (1, 1, 1), (DOT_THREADS, 1, 1), method="dot", line=SOURCE.name)


def _elements(name: str, target: DeviceTensor, source: DeviceTensor, argument: Any) -> LaunchRecord:
    _same_size(name, target, source)
    grid = (max(1, cdiv(target.size, THREADS * EACH)), 1, 1)
    args = (target, argument, np.uint64(target.size))
    return LaunchRecord(_kernel(name, target, source), args, grid, (THREADS, 1, 1), method=name, line=SOURCE.name)


def _same_size(name: str, a: DeviceTensor, b: DeviceTensor) -> None:
    if a.size != b.size:
        raise BuildError(f"{name}: {a} and {b} differ in size")


def _kernel(name: str, target: DeviceTensor, source: DeviceTensor) -> Kernel:
    defines = (("SOURCE", C_TYPES[source.dtype]), ("TARGET", C_TYPES[target.dtype]))
    return Kernel(SOURCE, name, defines, "device")
