"""The library NVRTC: found and loaded once, its version, and the architectures that it compiles for."""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

from core.errors import DeviceError

RECORDED = "13.5"  # the newest one whose code is recorded (docs/kernels.md, "The compiler's code")


@cache
def load_nvrtc() -> Any:
    """cuda.bindings.nvrtc. Raises DeviceError where there is none."""
    if sys.platform == "darwin":
        raise DeviceError("there is no NVRTC for macOS: kernels cannot be compiled here", hint="--device cpu works")
    try:
        load_library(version("cuda-bindings").partition(".")[0])
        nvrtc = import_module("cuda.bindings.nvrtc")
        status = nvrtc.nvrtcVersion()[0]
    except Exception as error:  # the binding raises its own kinds when a library is missing
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"kernels cannot be compiled here: {why}",
            hint="pip install cuda-python nvidia-cuda-nvrtc; --device cpu works",
        ) from None
    if int(status):
        raise DeviceError(f"NVRTC does not start: {status.name}", hint="pip install -U nvidia-cuda-nvrtc")
    return nvrtc


def load_library(major: str) -> Path | None:
    """Load the wheel's NVRTC that belongs to bindings of CUDA `major`, and return its path; None where none is needed.

    The `cu12` extra is installed beside the default NVRTC 13, which the bindings would prefer, and whose cubins no
    CUDA 12 driver loads; a library that is loaded already they take as it is.
    """
    try:
        listed = files(f"nvidia-cuda-nvrtc-cu{major}") or ()
    except PackageNotFoundError:
        return None
    wanted = re.compile(rf"libnvrtc\.so\.{major}|nvrtc64_{major}\d+_\d+\.dll")
    path = next((Path(str(f.locate())) for f in listed if wanted.fullmatch(f.name)), None)
    if path is not None:
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    return path


@cache
def nvrtc_version() -> str:
    """The version, such as 13.5.37: the wheel's where it is known, since NVRTC itself reports only 13.5."""
    _, major, minor = load_nvrtc().nvrtcVersion()
    for wheel in ("nvidia-cuda-nvrtc", f"nvidia-cuda-nvrtc-cu{major}"):
        try:
            wheel_version = version(wheel)
        except PackageNotFoundError:
            continue
        if wheel_version.startswith(f"{major}.{minor}"):
            return wheel_version
    return f"{major}.{minor}"


def emits_more(release: str) -> bool:
    """Whether a version of NVRTC is an older one of RECORDED's major version: another one may be the driver's limit."""
    (major, minor), (same, newest) = (text.split(".")[:2] for text in (release, RECORDED))
    return major == same and int(minor) < int(newest)


@cache
def supported() -> tuple[str, ...]:
    """The architectures that this NVRTC compiles for, without "a" and "f"."""
    return tuple(f"sm_{number}" for number in load_nvrtc().nvrtcGetSupportedArchs()[1])
