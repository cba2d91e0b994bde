"""The stub driver's limits of shared memory and of the sizes of a launch."""

from __future__ import annotations

from ctypes import byref, c_int, c_size_t

from stub_calls import Stub
from stub_rows import CLUSTER_SIZE, OK, RESOURCES, UNSUPPORTED, VALUE, Row

from core.kernels.chips import CHIPS, resident_blocks

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
