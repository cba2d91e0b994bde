"""The stub driver's limits of code, parameters and memory."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_size_t, c_uint64, c_void_p

from stub_calls import Stub, cubin
from stub_rows import CONTEXT, HANDLE, ILLEGAL, MEMORY, NO_BINARY, NO_JIT, NOT_FOUND, NOT_INITIALIZED, OK, VALUE, Row

# --- code ---------------------------------------------------------------------------------------------------------


def parameters(s: Stub) -> list[object]:
    offset, size = c_size_t(), c_size_t()
    statuses = []
    for index in range(3):
        statuses.append(s.c.cuFuncGetParamInfo(s.function("large"), c_size_t(index), byref(offset), byref(size)))
    return [*statuses, size.value]


CODE = [
    Row(
        "a cubin: of this compute capability, or of an earlier minor version of the same major one",
        "guide 1.3.4, binary compatibility; CUDA_ERROR_NO_BINARY_FOR_GPU",
        lambda s: [s.load(cubin(number))[0] for number in (75, 80, 86, 89, 90)],
        [NO_BINARY, OK, OK, NO_BINARY, NO_BINARY],
        86,
    ),
    Row(
        "PTX: there is no JIT compiler here",
        "driver API: CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
        lambda s: [s.load(b".version 8.0\n.visible .entry k() { ret; }\0")[0]],
        [NO_JIT],
    ),
    Row(
        "a kernel that is not in the module",
        "driver API: cuModuleGetFunction",
        lambda s: [s.c.cuModuleGetFunction(byref(c_void_p()), s.load(cubin(90))[1], b"nowhere")],
        [NOT_FOUND],
    ),
    Row("a kernel's parameters, from its cubin", "driver API: cuFuncGetParamInfo", parameters, [OK, OK, VALUE, 8_000]),
    Row(
        "handles that are none",
        "driver API: CUDA_ERROR_INVALID_HANDLE",
        lambda s: [
            s.c.cuFuncSetAttribute(s.stream, 8, 0),
            s.c.cuStreamSynchronize(s.event()),
            s.c.cuEventRecord(None, s.stream),
        ],
        [HANDLE, HANDLE, HANDLE],
    ),
    Row(
        "entry points that a driver of CUDA 12.3 does not have",
        "cudaTypedefs.h: PFN_cuFuncGetParamInfo_v12040",
        lambda s: [s.entry(name) for name in ("cuFuncGetParamInfo", "cuTensorMapEncodeTiled", "cuLaunchKernelEx")],
        [False, True, True],
        environment={"STUB_VERSION": "12030"},
    ),
    Row(
        "entry points that a driver of CUDA 11.8 does not have",
        "cudaTypedefs.h: PFN_cuTensorMapEncodeTiled_v12000",
        lambda s: [s.entry(name) for name in ("cuTensorMapEncodeTiled", "cuLaunchKernelEx", "cuGraphUpload")],
        [False, True, True],
        environment={"STUB_VERSION": "11080"},
    ),
    Row(
        "entry points that a driver of CUDA 11.5 does not have",
        "cudaTypedefs.h: PFN_cuLaunchKernelEx_v11060",
        lambda s: [s.entry(name) for name in ("cuLaunchKernelEx", "cuGraphInstantiateWithFlags")],
        [False, True],
        environment={"STUB_VERSION": "11050"},
    ),
    Row(
        "entry points of a later CUDA than the driver's are not given",
        "driver API: cuGetProcAddress",
        lambda s: [s.entry("cuEventElapsedTime", 12080), s.entry("cuEventElapsedTime", 2000)],
        [False, True],
        environment={"STUB_VERSION": "12030"},
    ),
    Row(
        "nothing before cuInit, and before a context is current",
        "driver API: CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_INVALID_CONTEXT",
        lambda s: [
            s.c.stub_forget() and 0,
            s.allocate()[0],
            s.c.cuInit(0),
            s.allocate()[0],
            s.c.cuCtxSetCurrent(c_void_p(8)),
            s.allocate()[0],
        ][1:],
        [NOT_INITIALIZED, OK, CONTEXT, OK, OK],
    ),
]


# --- memory -------------------------------------------------------------------------------------------------------


def freed(s: Stub) -> list[object]:
    _, address = s.allocate()
    launched = s.launch(y=address)
    released = s.free(address)
    after = s.launch(y=address), s.synchronize(), s.allocate()[0]
    return [launched, released, *after]


def captured_and_freed(s: Stub) -> list[object]:
    _, address = s.allocate()
    s.capture()
    s.launch(y=address)
    _, graph = s.captured()
    executable = c_void_p()
    s.c.cuGraphInstantiateWithFlags(byref(executable), graph, c_uint64(0))
    first = s.c.cuGraphLaunch(executable, s.stream), s.synchronize()
    s.free(address)
    return [*first, s.c.cuGraphLaunch(executable, s.stream), s.synchronize()]


def copies(s: Stub) -> list[object]:
    _, address = s.allocate(1000)
    room = (ctypes.c_uint8 * 4096)()
    sizes = ((address, 1000), (address, 1001), (address + 999, 2))
    there = [s.c.cuMemcpyHtoDAsync(c_uint64(a), room, c_size_t(n), s.stream) for a, n in sizes]
    back = [s.c.cuMemcpyDtoHAsync(room, c_uint64(a), c_size_t(n), s.stream) for a, n in sizes]
    return there + back + [s.c.cuMemsetD8Async(c_uint64(address), 0, c_size_t(1001), s.stream)]


def vast(s: Stub) -> list[object]:
    """145 GB of which three bytes are ever touched."""
    size = 145 * 10**9
    status, address = s.allocate(size)
    zeroed = s.c.cuMemsetD8Async(c_uint64(address), 0, c_size_t(size), s.stream)
    room = (ctypes.c_uint8 * 3)(1, 2, 3)
    s.c.cuMemcpyHtoDAsync(c_uint64(address + size - 3), room, c_size_t(3), s.stream)
    seen = (ctypes.c_uint8 * 3)()
    s.c.cuMemcpyDtoHAsync(seen, c_uint64(address + size - 3), c_size_t(3), s.stream)
    second = s.allocate(10**9)[0]
    return [status, zeroed, bytes(seen), second, s.free(address)]


MEMORY_ROWS = [
    Row(
        "an allocation of nothing, and of more than there is",
        "driver API: cuMemAlloc",
        lambda s: [s.allocate(0)[0], s.allocate(1 << 20)[0], s.allocate(1 << 30)[0]],
        [VALUE, OK, MEMORY],
    ),
    Row(
        "memory that was freed, or never allocated, is not freed",
        "driver API: cuMemFree",
        lambda s: [s.free(a := s.allocate()[1]), s.free(a), s.free(a + 8)],
        [OK, VALUE, VALUE],
    ),
    Row(
        "use after free: the launch is taken, and the context is lost",
        "driver API: CUDA_ERROR_ILLEGAL_ADDRESS; calls may return errors of previous, asynchronous launches",
        freed,
        [OK, OK, OK, ILLEGAL, ILLEGAL],
    ),
    Row(
        "use after free within a graph",
        "driver API: CUDA_ERROR_ILLEGAL_ADDRESS",
        captured_and_freed,
        [OK, OK, OK, ILLEGAL],
    ),
    Row(
        "copies and fills beyond an allocation",
        "driver API: cuMemcpyHtoDAsync, cuMemsetD8Async",
        copies,
        [OK, VALUE, VALUE, OK, VALUE, VALUE, VALUE],
    ),
    Row(
        "145 GB can be allocated and zeroed on any host",
        "ours: addresses without memory behind them until they are written",
        vast,
        [OK, OK, b"\1\2\3", MEMORY, OK],
        environment={"STUB_MEMORY": str(145 * 10**9 + 10**6)},
    ),
]
