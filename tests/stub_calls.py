"""The stub driver's functions, called as a C program would call them, for tests/sim/test_stub_driver.py."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

from core.kernels.chips import CHIPS
from core.kernels.nvrtc import Kernel, compile_cubin

OK = 0

SOURCE = """
extern "C" __global__ void plain(float* y) { y[threadIdx.x] = 1; }
extern "C" __global__ void shared(float* y) {
    __shared__ float s[32];
    s[threadIdx.x % 32] = y[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[31 - threadIdx.x % 32];
}
extern "C" __global__ void __launch_bounds__(64) bounded(float* y) { y[threadIdx.x] = 1; }
extern "C" __global__ void heavy(float* y, const float* x, int n) {
    float a[80];
    for (int i = 0; i < 80; i++) a[i] = x[i * 32 + threadIdx.x];
    for (int k = 0; k < n; k++)
        for (int i = 0; i < 80; i++) a[i] = a[i] * a[(i * 7 + 1) % 80] + a[(i + 3) % 80];
    for (int i = 0; i < 80; i++) y[i * 32 + threadIdx.x] = a[i];
}
struct Large { int held[2000]; };
extern "C" __global__ void large(float* y, const __grid_constant__ Large by) { y[threadIdx.x] = by.held[threadIdx.x]; }
#if __CUDA_ARCH__ >= 900
extern "C" __global__ void __cluster_dims__(2, 1, 1) paired(float* y) { y[threadIdx.x] = 1; }
#endif
"""


class Attribute(ctypes.Structure):
    _fields_ = [("id", c_int), ("pad", c_int), ("value", c_uint32 * 16)]


class Config(ctypes.Structure):
    _fields_ = [("grid", c_uint32 * 3), ("block", c_uint32 * 3), ("shared", c_uint32), ("stream", c_void_p),
                ("attributes", ctypes.POINTER(Attribute)), ("count", c_uint32)]  # fmt: skip


class Stub:
    """The stub's functions, called as C. `chip` is what STUB_CHIP says."""

    def __init__(self, library: ctypes.CDLL, chip: int) -> None:
        self.c, self.chip, self.functions = library, chip, {}
        self.stream = c_void_p()

    def begin(self) -> None:
        self.c.stub_forget()
        self.c.cuInit(0)
        self.c.cuCtxSetCurrent(c_void_p(8))
        self.c.cuStreamCreate(byref(self.stream), 0)

    def allocate(self, size: int = 4096) -> tuple[int, int]:
        address = c_uint64()
        return self.c.cuMemAlloc(byref(address), c_size_t(size)), address.value

    def free(self, address: int) -> int:
        return self.c.cuMemFree(c_uint64(address))

    def load(self, code: bytes) -> tuple[int, c_void_p]:
        module = c_void_p()
        return self.c.cuModuleLoadData(byref(module), c_char_p(code)), module

    def function(self, name: str) -> c_void_p:
        if name not in self.functions:
            _, module = self.load(cubin(self.chip))
            function = c_void_p()
            assert self.c.cuModuleGetFunction(byref(function), module, name.encode()) == OK
            self.functions[name] = function
        return self.functions[name]

    def launch(self, name: str = "plain", grid=(1, 1, 1), block=(32, 1, 1), smem=0, y=None, **attributes) -> int:
        """attributes: cluster, pdl."""
        ids = {"cluster": 4, "pdl": 6, "cooperative": 2}
        made = (Attribute * 4)()
        for held, (key, value) in zip(made, attributes.items(), strict=False):
            held.id = ids[key]
            held.value[:3] = [value, 1, 1]
        config = Config((c_uint32 * 3)(*grid), (c_uint32 * 3)(*block), smem, self.stream, made, len(attributes))
        argument, room = c_uint64(y if y is not None else 0), (c_uint64 * 1100)()
        parameters = (c_void_p * 8)(ctypes.addressof(argument), *[ctypes.addressof(room)] * 7)
        return self.c.cuLaunchKernelEx(byref(config), self.function(name), parameters, None)

    def attribute(self, name: str, kind: int) -> int:
        value = c_int()
        assert self.c.cuFuncGetAttribute(byref(value), kind, self.function(name)) == OK
        return value.value

    def allow(self, name: str, dynamic: int) -> int:
        return self.c.cuFuncSetAttribute(self.function(name), 8, dynamic)

    def capture(self, mode: int = 2) -> int:
        return self.c.cuStreamBeginCapture_v2(self.stream, mode)

    def captured(self) -> tuple[int, c_void_p]:
        graph = c_void_p()
        return self.c.cuStreamEndCapture(self.stream, byref(graph)), graph

    def graph(self) -> c_void_p:
        """An executable graph of one launch."""
        executable = c_void_p()
        self.capture()
        self.launch(y=self.allocate()[1])
        _, graph = self.captured()
        assert self.c.cuGraphInstantiateWithFlags(byref(executable), graph, c_uint64(0)) == OK
        return executable

    def event(self, flags: int = 0) -> c_void_p:
        event = c_void_p()
        assert self.c.cuEventCreate(byref(event), flags) == OK
        return event

    def synchronize(self) -> int:
        return self.c.cuStreamSynchronize(self.stream)

    def entry(self, name: str, version: int = 2000) -> bool:
        function = c_void_p()
        self.c.cuGetProcAddress_v2(name.encode(), byref(function), version, c_uint64(0), None)
        return bool(function.value)

    def encode(
        self, rank=2, dims=(64, 64), strides=(256,), box=(32, 8), swizzle=3, address=0, at=0, steps=(1, 1)
    ) -> int:
        """A tensor map of f32."""
        room = (ctypes.c_uint8 * 256)()
        target = -(-ctypes.addressof(room) // 64) * 64 + at
        lists = (c_uint64 * 5)(*dims), (c_uint64 * 5)(*strides), (c_uint32 * 5)(*box), (c_uint32 * 5)(*steps)
        return self.c.cuTensorMapEncodeTiled(
            c_void_p(target), 7, rank, c_void_p(4096 + address), *(byref(x) for x in lists), 0, swizzle, 2, 0
        )


def cubin(chip: int) -> bytes:
    return compile_cubin(Kernel(Path("limits.cu"), "plain", text=SOURCE), CHIPS[chip].arch).cubin
