"""The stub driver with the simulator behind it: the cuda device as it is, and what it launches is computed.

No test: `simulate(stub)` puts it in place of `core.device.cuda.CudaDevice`, in a process whose libcuda.so.1 is built
from stub_driver.c. Device memory is `space`, from `base` on.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_int, c_size_t, c_uint32, c_uint64, c_void_p

import core.device.cuda as module
from core.device.cuda import CudaDevice
from core.device.nvrtc import compile_ptx
from core.device.sim import Memory, Simulator

space, simulators = Memory(1 << 26), {}
base = space.bytes.ctypes.data
kernels = {}  # the driver's function -> the kernel


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
    kernel, found = simulator(function)
    sizes = [v.size for v, _ in found.program(kernel.name).parameters]
    raw = [ctypes.string_at(parameters[i], size) for i, size in enumerate(sizes)]
    found.launch(kernel.name, grid[:3], block[:3], raw, shared, cluster)
    return 0


class Simulated(CudaDevice):
    def __init__(self):
        super().__init__()
        self.sms = 4  # as many as the simulator has, so that grids are the same

    def _load(self, kernel, code):
        function = super()._load(kernel, code)
        kernels[int(function.handle)] = kernel
        return function

    def resident(self, kernel, threads, smem):
        return self.sms


def simulate(stub):
    """From here on a CudaDevice computes."""
    stub.stub_simulate(c_void_p(base), allocate, launch)
    module.CudaDevice = Simulated


def check_pool():
    assert space.bytes.ctypes.data == base, "the pool moved"
