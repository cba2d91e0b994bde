"""The NVIDIA driver through cuda.bindings: opening it, calls whose status is checked, and errors in one line.

Every failure is a DeviceError with a remedy. Nothing here knows kernels, tensors or plans.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from core.errors import DeviceError
from core.kernels.tensors import TensorMap

# NVRTC's major version -> the oldest driver that loads its cubins: as cuDriverGetVersion counts, and by its own number
OLDEST = {12: (12_000, "525"), 13: (13_000, "580")}
DOCTOR = "`core doctor` shows this machine; --device cpu works"

# statuses after which the context is lost: this process cannot use the device any more
STICKY = {
    700: "an illegal address was read or written",
    702: "a kernel ran longer than the system allows",
    714: "a hardware stack error",
    715: "an illegal instruction",
    716: "a misaligned address was read or written",
    717: "an address of the wrong memory space",
    718: "an invalid program counter",
    719: "a kernel failed in a way that the driver does not name",
    220: "an uncorrectable NVLink error",
    214: "an uncorrectable memory (ECC) error",
    710: "an assertion in a kernel failed",
}
OUT_OF_MEMORY, NO_DEVICE, SUCCESS = 2, 100, 0
# statuses that have words of their own when the driver is opened
OPENING = {
    100: "there is no NVIDIA GPU that this process can see",
    3: "the NVIDIA driver does not start",
    34: "this is a stub of the NVIDIA driver, not the driver",
    803: "the NVIDIA driver's parts have different versions: restart the machine after its update",
    804: "the NVIDIA driver is too old for the CUDA libraries in use",
    999: "the NVIDIA driver does not start",
}


class StickyError(DeviceError):
    """An error that took the context with it. `status` is the driver's number."""

    def __init__(self, message: str, status: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@cache
def bindings() -> Any:
    """cuda.bindings.driver with a working driver. Raises DeviceError where there is none, or one too old."""
    if sys.platform == "darwin":
        raise DeviceError("macOS has no CUDA", hint="--device cpu trains here")
    try:
        driver = import_module("cuda.bindings.driver")
    except ImportError as error:
        raise DeviceError(f"cuda-python is not usable: {error}", hint="pip install cuda-python") from None
    try:
        status = int(driver.cuInit(0)[0])
    except Exception as error:  # the binding raises kinds of its own where libcuda is missing
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"no NVIDIA driver here ({why})", hint=f"install one, version 580 or newer; {DOCTOR}"
        ) from None
    if status != SUCCESS:
        problem = OPENING.get(status, "the NVIDIA driver does not start")
        raise DeviceError(f"{problem} ({_name(driver, status)})", hint=f"run `nvidia-smi`; {DOCTOR}")
    _check_version(driver)
    return driver


def _check_version(driver: Any) -> None:
    from core.kernels.nvrtc_library import nvrtc_version

    problem = too_old(int(driver.cuDriverGetVersion()[1]), int(nvrtc_version().partition(".")[0]))
    if problem:
        raise DeviceError(problem[0], hint=f"{problem[1]}; {DOCTOR}")


def too_old(version: int, compiler: int) -> tuple[str, str] | None:
    """(problem, remedy) of a driver of `version` that loads no code of NVRTC `compiler`.x."""
    oldest, driver = OLDEST.get(compiler, OLDEST[13])
    if version >= oldest:
        return None
    update = f"update the driver to {driver} or newer"
    if version >= OLDEST[12][0]:
        update += ', or compile for the one that is here: pip install "corelm[cu12]"'
    has = f"{version // 1000}.{version % 1000 // 10}"
    return f"the NVIDIA driver is for CUDA {has}, and kernels compiled here need {compiler}.0", update


def _name(driver: Any, status: int) -> str:
    try:
        return str(driver.CUresult(status).name)
    except ValueError:
        return f"driver error {status}"


class Driver:
    """Checked calls. `call("cuMemAlloc", n)` gives the function's results without its status."""

    def __init__(self) -> None:
        self.api = bindings()
        self.dead: StickyError | None = None

    def call(self, function: str, *args: Any, doing: str = "") -> Any:
        """Raises StickyError, from then on for every call, or DeviceError."""
        if self.dead is not None:
            raise self.dead
        status, *results = getattr(self.api, function)(*args)
        if int(status) != SUCCESS:
            raise self.error(int(status), doing or function)
        return results[0] if len(results) == 1 else tuple(results) or None

    def error(self, status: int, doing: str) -> DeviceError:
        """The error for a status; a sticky one is remembered."""
        name = _name(self.api, status)
        if status in STICKY:
            self.dead = StickyError(f"{STICKY[status]} ({name})", status)
            return self.dead
        return DeviceError(f"{doing}: {name}", hint=DOCTOR)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the device."""
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)


# --- tensor maps -------------------------------------------------------------------------------------------------

MAP_BYTES, MAP_ALIGNMENT = 128, 128
MAP_DTYPES = {"u8": 0, "u32": 2, "i32": 3, "fp16": 6, "f32": 7, "f64": 8, "bf16": 9}  # CUtensorMapDataType
MAP_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}  # CUtensorMapSwizzle
L2_128B = 2  # CUtensorMapL2promotion


def aligned_bytes(nbytes: int, alignment: int = MAP_ALIGNMENT) -> Any:
    """A zeroed NumPy buffer of bytes that starts on `alignment`."""
    raw = np.zeros(nbytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


@cache
def _encode_function() -> Any:
    """cuTensorMapEncodeTiled through ctypes: the binding hands the driver memory that is aligned to less."""
    driver = bindings()
    lookup = driver.cuGetProcAddress(b"cuTensorMapEncodeTiled", 12000, 0)
    if int(lookup[0]) != SUCCESS or not int(lookup[1]):
        raise DeviceError("this driver has no tensor maps", hint=f"update the driver to 580 or newer; {DOCTOR}")
    p, u32, enum = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int
    prototype = ctypes.CFUNCTYPE(enum, p, enum, u32, p, p, p, p, p, enum, enum, enum, enum)
    return prototype(int(lookup[1]))


def encode_map(driver: Driver, m: TensorMap) -> bytes:
    """The 128 bytes that a kernel takes as its `__grid_constant__` tensor map. Raises DeviceError."""
    rank = len(m.dims)
    target = aligned_bytes(MAP_BYTES)
    dims = (ctypes.c_uint64 * rank)(*m.dims)
    strides = (ctypes.c_uint64 * max(rank - 1, 1))(*m.strides)
    box = (ctypes.c_uint32 * rank)(*m.box)
    ones = (ctypes.c_uint32 * rank)(*[1] * rank)
    status = _encode_function()(
        target.ctypes.data, MAP_DTYPES[m.dtype], rank, m.tensor.pointer, dims, strides, box, ones,
        0, MAP_SWIZZLES[m.swizzle], L2_128B, 0,
    )  # fmt: skip
    if status != SUCCESS:
        raise driver.error(status, f"tensor map of {m.tensor}, dims {m.dims}, strides {m.strides}, box {m.box}")
    return bytes(target)
