"""The limits of the stub driver, one by one, each with its source in NVIDIA's documentation.

`TABLE` is that list: what is limited, where it is documented, the chip, what a test calls, and the statuses that come
back. "driver API: f" is the CUDA Driver API reference of that function or constant, as cuda.bindings.driver carries it;
"guide" the CUDA Programming Guide. Where it names a limit and not the status of breaking it, the row says so.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes import byref, c_float, c_int, c_size_t, c_uint64, c_void_p
from typing import NamedTuple

import pytest
import stub
from stub_calls import Stub, cubin

from core.kernels.chips import CHIPS, resident_blocks

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1"),
    pytest.mark.skipif(stub.COMPILER is None, reason="no C compiler to build the stub with"),
]

OK, VALUE, MEMORY, NOT_INITIALIZED, CONTEXT = 0, 1, 2, 3, 201
NO_BINARY, NO_JIT, HANDLE, NOT_FOUND, ILLEGAL, RESOURCES, UNSUPPORTED = 209, 221, 400, 500, 700, 701, 801
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURED_EVENT, CLUSTER_SIZE = 900, 901, 907, 912


class Row(NamedTuple):
    what: str
    source: str
    call: Callable[[Stub], list[object]]
    gives: list[object]
    chip: int = 90
    environment: dict[str, str] = {}


# --- shared memory ------------------------------------------------------------------------------------------------


def opted_in(s: Stub) -> list[object]:
    most = CHIPS[s.chip].shared - 128
    return [
        s.launch("shared", smem=50_000),
        s.allow("shared", most),
        s.launch("shared", smem=most),
        s.allow("shared", most + 1),
    ]


DYNAMIC = "driver API: CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"
OCCUPANCY = "cuda_occupancy.h of CUDA 13.5, which ships with the toolkit"
SHARED = [
    Row(
        "dynamic shared memory, not asked for: 48 KiB less what is static",
        DYNAMIC,
        lambda s: [
            s.attribute("shared", 1),
            s.attribute("shared", 8),
            s.launch("shared", smem=49_024),
            s.launch("shared", smem=49_025),
        ],
        [128, 49_024, OK, VALUE],
    ),
    *[
        Row(
            f"dynamic shared memory, asked for on {chip.arch}: {chip.shared:,} bytes less what is static",
            "driver API: cuFuncSetAttribute; guide 5.1, table of memory: maximum shared memory per thread block",
            opted_in,
            [VALUE, OK, OK, VALUE],
            chip.number,
        )
        for chip in CHIPS.values()
    ],
    Row(
        "thread blocks of a multiprocessor: threads, blocks, registers, shared memory",
        OCCUPANCY,
        lambda s: [
            resident(s, name, threads, smem)
            for name in ("plain", "shared", "heavy")
            for threads in (32, 96, 256)
            for smem in (0, 9_000, 49_024)
        ],
        [True] * 27,
        86,
    ),
]


def resident(s: Stub, name: str, threads: int, smem: int) -> bool:
    """Whether the stub's occupancy is that of core.kernels.chips; both are written from NVIDIA's header."""
    each = c_int()
    s.c.cuOccupancyMaxActiveBlocksPerMultiprocessor(byref(each), s.function(name), threads, c_size_t(smem))
    limits = s.attribute(name, 4), s.attribute(name, 1)
    return each.value == resident_blocks(CHIPS[s.chip], *limits, threads, smem)


# --- sizes of a launch --------------------------------------------------------------------------------------------

SIZES = "guide 5.1, table of device and multiprocessor information: maximum dimensions"
CLUSTERS = "driver API: CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, CUDA_ERROR_INVALID_CLUSTER_SIZE"
LAUNCHES = [
    Row(
        "grid: 2^31 - 1 along x, 65,535 along y and z, 1 at least",
        SIZES,
        lambda s: [
            s.launch(grid=g)
            for g in ((2**31 - 1, 1, 1), (2**31, 1, 1), (1, 65535, 65535), (1, 65536, 1), (1, 1, 65536), (0, 1, 1))
        ],
        [OK, VALUE, OK, VALUE, VALUE, VALUE],
    ),
    Row(
        "thread block: 1,024 along x and y, 64 along z, 1,024 in all, 1 at least",
        SIZES,
        lambda s: [
            s.launch(block=b)
            for b in ((1024, 1, 1), (1025, 1, 1), (1, 1024, 1), (1, 1, 64), (1, 1, 65), (64, 32, 1), (32, 0, 1))
        ],
        [OK, VALUE, OK, OK, VALUE, VALUE, VALUE],
    ),
    Row(
        "threads of a thread block that __launch_bounds__ gives",
        "driver API: CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK",
        lambda s: [s.launch("bounded", block=(n, 1, 1)) for n in (64, 65)] + [s.attribute("bounded", 0)],
        [OK, VALUE, 64],
    ),
    Row(
        "registers times threads: 65,536 of a thread block, given to warps by 256",
        f"driver API: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES; {OCCUPANCY}",
        lambda s: [
            s.attribute("heavy", 4) > 64,
            s.launch("heavy", block=(512, 1, 1)),
            s.launch("heavy", block=(1024, 1, 1)),
        ],
        [True, OK, RESOURCES],
    ),
    Row(
        "clusters: of 8 thread blocks at most, which divide the grid",
        CLUSTERS,
        lambda s: [
            s.launch(grid=(16, 1, 1), cluster=8),
            s.launch(grid=(16, 1, 1), cluster=16),
            s.launch(grid=(15, 1, 1), cluster=2),
            s.launch(grid=(16, 1, 1), cluster=0),
        ],
        [OK, CLUSTER_SIZE, CLUSTER_SIZE, CLUSTER_SIZE],
    ),
    Row(
        "clusters: those that __cluster_dims__ gives",
        "driver API: CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH: validity is checked at launch",
        lambda s: [
            s.launch("paired", grid=(4, 1, 1)),
            s.launch("paired", grid=(3, 1, 1)),
            s.launch("paired", grid=(4, 1, 1), cluster=4),
        ],
        [OK, CLUSTER_SIZE, CLUSTER_SIZE],
    ),
    Row(
        "clusters: from 9.0 on (the status is ours)",
        "driver API: CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH; guide 5.1, table of features",
        lambda s: [s.launch(grid=(2, 1, 1), cluster=2)],
        [UNSUPPORTED],
        89,
    ),
    Row(
        "launches that overlap: from 9.0 on (the status is ours)",
        "guide, programmatic dependent launch: compute capability 9.0",
        lambda s: [s.launch(pdl=1)],
        [UNSUPPORTED],
        89,
    ),
    Row(
        "launches that overlap",
        "driver API: cuLaunchKernelEx, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION",
        lambda s: [s.launch(pdl=1), s.launch(cooperative=1)],
        [OK, VALUE],
    ),
    Row(
        "arguments: 32,764 bytes from CUDA 12.1 on",
        "NVIDIA's blog, CUDA 12.1 Supports Large Kernel Parameters; CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        lambda s: [s.launch("large")],
        [OK],
        80,
    ),
    Row(
        "arguments: 4,096 bytes before it",
        "NVIDIA's blog, CUDA 12.1 Supports Large Kernel Parameters; CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        lambda s: [s.launch("large")],
        [RESOURCES],
        80,
        {"STUB_VERSION": "12000"},
    ),
]


# --- code ---------------------------------------------------------------------------------------------------------


def parameters(s: Stub) -> list[object]:
    offset, size = c_size_t(), c_size_t()
    found = []
    for index in range(3):
        found.append(s.c.cuFuncGetParamInfo(s.function("large"), c_size_t(index), byref(offset), byref(size)))
    return [*found, size.value]


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


# --- capture, graphs and events ---------------------------------------------------------------------------------------


def during(call: Callable[[Stub], object], mode: int = 2) -> Callable[[Stub], list[object]]:
    """[what the call gives while the stream is captured, a launch after it, the end of the capture]."""

    def run(s: Stub) -> list[object]:
        s.function("plain")
        before = s.allocate()[1]
        event, old = s.event(), s.event()
        s.c.cuEventRecord(old, s.stream)
        s.capture(mode)
        s.held = (event, old, before)
        found = call(s)
        return [found, s.launch(), s.captured()[0]]

    return run


def record_and(then: str) -> Callable[[Stub], object]:
    def call(s: Stub) -> object:
        event, old, _ = s.held
        s.c.cuEventRecord(event, s.stream)
        if then == "cuEventElapsedTime":
            return s.c.cuEventElapsedTime_v2(byref(c_float()), old, event)
        return getattr(s.c, then)(event)

    return call


GUIDE = "guide 4.2, CUDA graphs, prohibited and unhandled operations"
MODES = "driver API: cuThreadExchangeStreamCaptureMode"
BROKEN = [CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_INVALIDATED]
CAPTURE = [
    Row("waiting for the stream that is captured", GUIDE, during(Stub.synchronize), BROKEN),
    *[
        Row(
            f"{call} on an event of the capture",
            f"{GUIDE}; CUDA_ERROR_CAPTURED_EVENT",
            during(record_and(call)),
            [CAPTURED_EVENT, CAPTURE_INVALIDATED, CAPTURE_INVALIDATED],
        )
        for call in ("cuEventSynchronize", "cuEventQuery", "cuEventElapsedTime")
    ],
    Row("waiting for an event of before", GUIDE, during(lambda s: s.c.cuEventSynchronize(s.held[1])), [OK, OK, OK]),
    Row("allocating while capturing in relaxed mode", MODES, during(lambda s: s.allocate()[0]), [OK, OK, OK]),
    Row(
        "loading and freeing while capturing in relaxed mode",
        MODES,
        during(lambda s: [s.load(cubin(90))[0], s.free(s.held[2])]),
        [[OK, OK], OK, OK],
    ),
    Row("allocating while capturing in global mode", MODES, during(lambda s: s.allocate()[0], 0), BROKEN),
    Row("loading while capturing in the mode of a thread", MODES, during(lambda s: s.load(cubin(90))[0], 1), BROKEN),
    Row("a capture within a capture", "driver API: cuStreamBeginCapture", during(Stub.capture), [VALUE, OK, OK]),
    Row("the end of no capture", "driver API: cuStreamEndCapture", lambda s: [s.captured()[0]], [VALUE]),
    Row(
        "a launch that is captured is held against the limits at once",
        "driver API: cuLaunchKernelEx",
        during(lambda s: s.launch(block=(2048, 1, 1))),
        [VALUE, OK, OK],
    ),
    Row(
        "graphs that were destroyed",
        "driver API: cuGraphLaunch, cuGraphExecDestroy",
        lambda s: [
            s.c.cuGraphLaunch(g := s.graph(), s.stream),
            s.c.cuGraphExecDestroy(g),
            s.c.cuGraphLaunch(g, s.stream),
            s.c.cuGraphExecDestroy(g),
        ],
        [OK, OK, VALUE, VALUE],
    ),
    Row(
        "the time between events: both recorded, both timed",
        "driver API: cuEventElapsedTime",
        lambda s: [
            s.c.cuEventElapsedTime_v2(byref(c_float()), *between(s, *flags))
            for flags in ((0, 0, True), (0, 2, True), (0, 0, False))
        ],
        [OK, HANDLE, HANDLE],
    ),
    Row(
        "events that were destroyed",
        "driver API: CUDA_ERROR_INVALID_HANDLE",
        lambda s: [
            s.c.cuEventDestroy_v2(e := s.event()),
            s.c.cuEventRecord(e, s.stream),
            s.c.cuEventSynchronize(e),
            s.c.cuEventDestroy_v2(e),
        ],
        [OK, HANDLE, HANDLE, HANDLE],
    ),
]


def between(s: Stub, first: int, second: int, record: bool) -> tuple[c_void_p, c_void_p]:
    events = s.event(first), s.event(second)
    s.c.cuEventRecord(events[0], s.stream)
    if record:
        s.c.cuEventRecord(events[1], s.stream)
    return events


# --- tensor maps -----------------------------------------------------------------------------------------------------

TILED = "driver API: cuTensorMapEncodeTiled"
TENSOR_MAPS = [
    Row("from 9.0 on", TILED, lambda s: [s.encode()], [VALUE], 89),
    Row(
        "aligned: the map to 64 bytes, the tensor to 16",
        TILED,
        lambda s: [s.encode(), s.encode(at=32), s.encode(address=8)],
        [OK, VALUE, VALUE],
    ),
    Row(
        "rank 1 to 5; sizes 1 to 2^32",
        TILED,
        lambda s: (
            [s.encode(rank=n) for n in (0, 6)] + [s.encode(dims=d) for d in ((2**32, 64), (2**32 + 1, 64), (0, 64))]
        ),
        [VALUE, VALUE, OK, VALUE, VALUE],
    ),
    Row(
        "strides: multiples of 16 bytes below 2^40",
        TILED,
        lambda s: [s.encode(strides=(n,)) for n in (2**40 - 16, 2**40, 264)],
        [OK, VALUE, VALUE],
    ),
    Row(
        "box: 1 to 256 elements, the innermost a multiple of 16 bytes and within the swizzle",
        TILED,
        lambda s: [
            s.encode(box=b, swizzle=w)
            for b, w in (
                ((32, 256), 3),
                ((32, 257), 3),
                ((32, 0), 3),
                ((6, 8), 0),
                ((64, 8), 3),
                ((64, 8), 0),
                ((16, 8), 1),
            )
        ],
        [OK, VALUE, VALUE, VALUE, VALUE, OK, VALUE],
    ),
    Row("element strides: 1 to 8", TILED, lambda s: [s.encode(steps=(1, n)) for n in (8, 9, 0)], [OK, VALUE, VALUE]),
]

TABLE = [*SHARED, *LAUNCHES, *CODE, *MEMORY_ROWS, *CAPTURE, *TENSOR_MAPS]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return ctypes.CDLL(str(stub.build(tmp_path_factory.mktemp("stub"))))


@pytest.mark.parametrize("row", TABLE, ids=[row.what for row in TABLE])
def test_the_stub_has_the_documented_limit(library, monkeypatch, row):
    for name in [name for name in os.environ if name.startswith("STUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STUB_CHIP", str(row.chip))
    for name, value in row.environment.items():
        monkeypatch.setenv(name, value)
    stub = Stub(library, row.chip)
    stub.begin()
    assert row.source
    assert row.call(stub) == row.gives


def test_the_device_says_what_the_chip_is(library, monkeypatch):
    for chip in CHIPS.values():
        monkeypatch.setenv("STUB_CHIP", str(chip.number))
        said = {}
        for name, kind in (("shared", 97), ("sm_shared", 81), ("sm_threads", 39), ("sm_blocks", 106)):
            value = c_int()
            assert library.cuDeviceGetAttribute(byref(value), kind, 0) == OK
            said[name] = value.value
        assert said == {name: getattr(chip, name) for name in said}
