"""The stub driver with the simulator behind it: the cuda device as it is, and what it launches is computed.

No test: `simulate(stub)` puts it in place of `core.device.cuda.CudaDevice`, in a process whose libcuda.so.1 is built
from stub_driver.c. Device memory is `space`, from `base` on.

The chip has faults where the environment names kernels, with commas between them: STUB_WRONG (the first element that
they write is off by one), STUB_REFUSES (they do not launch), STUB_HANGS (they never return), STUB_STRAYS (an address
that is not theirs, which takes the context with it).
"""

from __future__ import annotations

import ctypes
import os
import time
from ctypes import CFUNCTYPE, POINTER, c_int, c_size_t, c_uint32, c_uint64, c_void_p

import core.device.cuda as module
from core.device.cuda import CudaDevice
from core.kernels.nvrtc import compile_ptx
from core.sim import Memory, Simulator

space, simulators = Memory(1 << 26), {}
base = space.bytes.ctypes.data
kernels = {}  # the driver's function -> the kernel
REFUSED, STRAYED = 701, 700  # CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, CUDA_ERROR_ILLEGAL_ADDRESS


def faulty(kernel, kind):
    """Whether the environment gives a kernel this fault."""
    return kernel.name in os.environ.get(kind, "").split(",")


def simulator(function):
    kernel = kernels[function]
    compiled = compile_ptx(kernel)
    if compiled not in simulators:
        simulators[compiled] = Simulator(compiled.ptx, space)
    return kernel, simulators[compiled]


@CFUNCTYPE(c_uint64, c_size_t)
def allocate(size):
    return space.allocate(size)


@CFUNCTYPE(c_int, c_void_p, POINTER(c_uint32), POINTER(c_uint32), c_uint32, c_uint32, POINTER(c_void_p))
def launch(function, grid, block, shared, cluster, parameters):
    kernel, simulated = simulator(function)
    while faulty(kernel, "STUB_HANGS"):
        time.sleep(1)
    for kind, status in (("STUB_REFUSES", REFUSED), ("STUB_STRAYS", STRAYED)):
        if faulty(kernel, kind):
            return status
    sizes = [v.size for v, _ in simulated.program(kernel.name).parameters]
    raw = [ctypes.string_at(parameters[i], size) for i, size in enumerate(sizes)]
    simulated.launch(kernel.name, grid[:3], block[:3], raw, shared, cluster)
    if faulty(kernel, "STUB_WRONG"):
        ctypes.cast(base + int.from_bytes(raw[0], "little"), POINTER(ctypes.c_float))[0] += 1
    return 0


class Simulated(CudaDevice):
    def __init__(self, ordinal=0):
        super().__init__(ordinal)
        self.sms = 4  # as many as the simulator has, so that grids are the same
        load = self.kernels.load

        def noted(kernel, code):
            function = load(kernel, code)
            kernels[int(function.handle)] = kernel
            return function

        self.kernels.load = noted

    def resident(self, kernel, threads, smem):
        return self.sms


def simulate(stub):
    """From here on a CudaDevice computes."""
    stub.stub_simulate(c_void_p(base), allocate, launch)
    module.CudaDevice = Simulated


def check_pool():
    assert space.bytes.ctypes.data == base, "the pool moved"
