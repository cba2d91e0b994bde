"""Anybody's kernel: C++ names, device variables, includes, Python's own arguments, tensor maps."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest

import core.sim
from core.errors import BuildError
from core.kernels import toolkit
from core.kernels.cuda_file import CudaFile, _run_nvcc
from core.sim import KernelError, Map, Pointer
from core.sim.native.choice import EXECUTORS
from core.sim.native.toolchain import compiler

NAMES = """
#include <cstdint>
#include <limits>
typedef unsigned long long u64;  // the prelude has one of its own
template <typename T, int N> __global__ void fill(T* y, int n) { if (threadIdx.x < n) y[threadIdx.x] = T(N); }
__global__ void put(float* y, float a) { y[threadIdx.x] = a * warpSize; }
__global__ void put(int* y, int a) { y[threadIdx.x] = a; }
template <int N> __global__ void __launch_bounds__(N, 2) bounded(float* y) { y[threadIdx.x] = N; }
static __global__ void hidden(int32_t* y) { y[0] = std::numeric_limits<int32_t>::max(); }
namespace ns {
__constant__ float coeffs[4];
__device__ int counter = 40;
__global__ void count(float* y) { y[0] = coeffs[1]; counter++; }
}
"""


def floats(n: int) -> np.ndarray:
    return np.zeros(n, np.float32)


@pytest.fixture(scope="module")
def names() -> core.sim.KernelFile:
    return core.sim.load(NAMES)


# --- names ------------------------------------------------------------------------------------------------------


def test_a_kernel_has_its_cxx_name_and_a_template_its_arguments(names: core.sim.KernelFile) -> None:
    y = floats(4)
    names.run("fill<float, 3>", 1, 4, [y, 3])
    assert y.tolist() == [3, 3, 3, 0]
    z = np.zeros(4, np.int64)
    names.run("fill<long long, -7>", 1, 4, [z, 4])
    assert z.tolist() == [-7] * 4
    names.run("put(float*, float)", 1, 4, [y, 2])
    assert y.tolist() == [64] * 4
    names.run("bounded<4>", 1, 4, [y])
    assert y.tolist() == [4] * 4
    hidden = np.zeros(1, np.int32)
    names.run("hidden", 1, 1, [hidden])
    assert hidden[0] == 2**31 - 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("putt", r'no kernel "putt" in the source; did you mean "put"\?'),
        ("put", r'"put" may mean several kernels(.|\n)*"put\(float\*, float\)", "put\(int\*, int\)"'),
        ("fill", r'"fill"(.|\n)*fill<'),
        ("put(double*)", r'no kernel "put\(double\*\)"(.|\n)*put\(int\*, int\)'),
        ("fill<int>", r"fill<int>"),
    ],
)
def test_a_wrong_name_is_an_error_with_the_names_of_the_file(names: core.sim.KernelFile, name: str, says: str) -> None:
    with pytest.raises(BuildError, match=says):
        names.run(name, 1, 4, [floats(4), 1])


def test_kernels_of_a_file_share_variables_that_can_be_set_and_read(names: core.sim.KernelFile) -> None:
    y = floats(1)
    names.set("coeffs", np.arange(4, dtype=np.float32))
    names.run("ns::count", 1, 1, [y])
    names.run("count", 1, 1, [y])
    assert y[0] == 1 and names.get("ns::counter").tolist() == [42]
    assert names.get("coeffs", np.float32).tolist() == [0, 1, 2, 3]
    names.set("counter", 5)
    assert names.get("counter")[0] == 5
    with pytest.raises(BuildError, match=r'no variable "counted"(.|\n)*ns::counter'):
        names.get("counted")
    with pytest.raises(BuildError, match="coeffs has 16 bytes, and 20 were given"):
        names.set("coeffs", floats(5))


def test_variables_that_hold_addresses_of_others_do_so_from_the_start() -> None:
    source = """__device__ int table[3] = {1, 2, 3}; __device__ int* inside = table + 1;
    __device__ const char* const words[2] = {"ab", "cde"};
    __global__ void k(int* y, int i) { y[0] = *inside; y[1] = words[i][2]; }"""
    y = np.zeros(2, np.int32)
    core.sim.run(source, "k", 1, 1, [y, 1])
    assert y.tolist() == [2, ord("e")]


def test_findings_call_a_kernel_and_its_arguments_by_their_names(names: core.sim.KernelFile) -> None:
    with pytest.raises(
        KernelError, match=r"kernel fill<float, 3>, kernel\.cu:\d+ .*: thread 3 of block 0 writes y\[3\]"
    ):
        names.run("fill<float, 3>", 1, 4, [floats(3), 4])


# --- includes ---------------------------------------------------------------------------------------------------

INCLUDES = """
#include <cstdint>
#include <stdio.h>
#include <assert.h>
#include <math.h>
#include <float.h>
#include <climits>
#include <type_traits>
#include "scale.cuh"
__global__ void k(float* y) {
    static_assert(std::is_same<decltype(y), float*>::value && INT_MAX == 2147483647);
    y[0] = scale(y[0]) - INFINITY; y[1] = FLT_MAX;
}
"""


def test_a_source_includes_cs_headers_and_files_of_its_folder_and_of_include(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "k.cu").write_text(INCLUDES)
    (tmp_path / "scale.cuh").write_text('#include "deep/by.h"\n__device__ float scale(float x) { return x * BY; }')
    (tmp_path / "more/deep").mkdir()
    (tmp_path / "more/deep/by.h").write_text("#pragma once\n#define BY 3")
    y = floats(2)
    core.sim.run(tmp_path / "k.cu", "k", 1, 1, [y], include=[tmp_path / "more"])
    assert np.isneginf(y[0]) and y[1] == np.finfo(np.float32).max
    (tmp_path / "k.cu").write_text(INCLUDES.replace(" - INFINITY", ""))
    y[0] = 2
    core.sim.run(tmp_path / "k.cu", "k", 1, 1, [y], include=[tmp_path / "more"])
    assert y[0] == 6
    (tmp_path / "more/deep/by.h").write_text("#define BY 5")  # a header that changed is read anew
    core.sim.run(tmp_path / "k.cu", "k", 1, 1, [y], include=[tmp_path / "more"])
    assert y[0] == 30


HALVES = """
#include <cuda_fp16.h>
#include <cooperative_groups.h>
__global__ void k(__half* y) { y[cooperative_groups::this_grid().thread_rank()] = __float2half(1.5f); }
"""


@pytest.mark.skipif(not toolkit.toolkit().include, reason="no headers of CUDA here")
def test_a_source_includes_cudas_own_headers() -> None:
    y = np.zeros(64, np.float16)
    core.sim.run(HALVES, "k", 2, 32, [y])
    assert (y == 1.5).all()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without CUDA's headers and without nvcc."""
    monkeypatch.setattr(toolkit, "toolkit", toolkit.Toolkit)
    monkeypatch.setattr("core.kernels.cuda_file.toolkit", toolkit.Toolkit)


def test_without_cudas_headers_an_error_says_what_to_install(bare: None) -> None:
    with pytest.raises(BuildError, match=r"cuda_fp16\.h(.|\n)*corelm\[headers\]"):
        core.sim.load(HALVES)
    y = floats(2)
    core.sim.run(
        '#include <cuda_runtime.h>\n#include "stdint.h"\n__global__ void k(float* y) { y[1] = 1; }', "k", 1, 1, [y]
    )
    assert y[1] == 1


HOST = """
#include <vector>
__global__ void k(float* y, float a) { y[threadIdx.x] = a; }
template <int N> __global__ void t(float* y) { y[0] = N; }
int main() { std::vector<float> v; k<<<1, 32>>>(nullptr, 1); }
"""


def test_host_code_without_nvcc_is_an_error_with_a_sentence(bare: None) -> None:
    with pytest.raises(BuildError, match="host code is for nvcc, and there is none: pip install nvidia-cuda-nvcc"):
        core.sim.load(HOST)


@pytest.mark.skipif(toolkit.toolkit().nvcc is None, reason="no nvcc here")
def test_a_source_with_host_code_is_compiled_by_nvcc() -> None:
    found, y = core.sim.load(HOST), floats(4)
    found.run("k", 1, 4, [y, 2])
    assert y.tolist() == [2] * 4
    found.run("t<5>", 1, 1, [y])
    assert y[0] == 5


def test_a_launch_from_a_kernel_is_compiled_as_nvcc_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By separate compilation, and only then."""
    commands: list[list[str]] = []

    def nvcc(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if "-rdc=true" not in command and "<<<1, 2>>>" in Path(command[-1]).read_text():
            return subprocess.CompletedProcess(command, 1, "", "error: launch requires separate compilation mode")
        Path(command[command.index("-o") + 1]).write_text("ptx")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("core.kernels.cuda_file.subprocess.run", nvcc)
    for text, calls in (("k<<<1, 2>>>();", 2), ("", 1)):
        commands.clear()
        assert _run_nvcc(CudaFile(tmp_path / "k.cu", text), ())[0] == b"ptx" and len(commands) == calls


def test_the_prelude_is_there_when_it_is_asked_for() -> None:
    source = "__global__ void k(float* y) { y[0] = warp_sum(1.0f); }"
    y = floats(1)
    core.sim.run(source, "k", 1, 32, [y], strict=False, prelude=True)
    assert y[0] == 32
    with pytest.raises(BuildError, match="warp_sum of corelm's prelude: prelude=True"):
        core.sim.load(source)
    with pytest.raises(BuildError, match='identifier "i" is undefined') as caught:  # a local name of the prelude too
        core.sim.load("__global__ void k(float* y) { y[i] = 1; }")
    assert not caught.value.hint


# --- arguments --------------------------------------------------------------------------------------------------

TYPED = """
struct Pair { int n; float x; };
__global__ void k(float* y, int n, float a, double b, unsigned char c, long long d, Pair p) {
    y[0] = n; y[1] = a; y[2] = b; y[3] = c; y[4] = d; y[5] = p.n + p.x;
}
__global__ void each(float** rows, int n) { rows[threadIdx.x][n] = threadIdx.x + 1; }
"""


def test_python_numbers_structs_and_addresses_inside_arrays_are_arguments() -> None:
    found, y = core.sim.load(TYPED), floats(8)
    pair = np.array((3, 0.5), [("n", "i4"), ("x", "f4")])[()]
    found.run("k", 1, 1, [Pointer(y, 2), -7, 1, 2.5, 200, -(2**40), pair])
    assert y.tolist() == [0, 0, -7, 1, 2.5, 200, -(2**40), 3.5]
    for bad, says in (
        (2.5, "argument 1 is the float 2.5"),
        (2**40, "the parameter has 4 bytes"),
        ("x", "expected a NumPy"),
    ):
        with pytest.raises(BuildError, match=says):
            found.run("k", 1, 1, [y, bad, 1, 2.5, 200, 0, pair])
    with pytest.raises(KernelError, match="takes 7 arguments and was given 2"):
        found.run("k", 1, 1, [y, 1])


def test_an_array_of_addresses_reaches_arrays_that_are_up_to_date_after_every_launch() -> None:
    found, one, two = core.sim.load(TYPED), floats(4), floats(4)
    rows = np.array([found.address(one), found.address(two, 1)], np.uint64)
    found.run("each", 1, 2, [rows, 1])
    one[0] = 9
    found.run("each", 1, 2, [rows, 2])
    assert one.tolist() == [9, 1, 1, 0] and two.tolist() == [0, 0, 2, 2]


# --- tensor maps ------------------------------------------------------------------------------------------------

MAPPED = """
#include <stdint.h>
struct alignas(64) M { char raw[128]; };
__device__ void copy(const void* map, float* y, int x, int r) {
    __shared__ alignas(128) float tile[16];
    __shared__ alignas(8) uint64_t bar;
    uint32_t b = __cvta_generic_to_shared(&bar), t = __cvta_generic_to_shared(tile);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(b));
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 64;" :: "r"(b) : "memory");
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3, %4}], [%5];"
                 :: "r"(t), "l"(map), "r"(0), "r"(r), "r"(x), "r"(b) : "memory");
    asm volatile("{ .reg .pred p; W: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0; @!p bra W; }"
                 :: "r"(b) : "memory");
    for (int i = 0; i < 16; i++) y[i] = tile[i];
}
__global__ void by_value(const __grid_constant__ M map, float* y) { copy(&map, y, 1, 2); }
__global__ void by_pointer(const M* map, float* y) { copy(map, y, 1, 2); }
"""


@pytest.mark.parametrize("kernel", ["by_value", "by_pointer"])
def test_a_tensor_map_has_strides_and_more_dims_than_its_array_by_value_and_by_pointer(kernel: str) -> None:
    x = np.arange(8 * 8, dtype=np.float32).reshape(8, 8)  # as (2 halves of a row) x 8 rows x 4 columns
    one = Map(x, box=(4, 4, 1), dims=(4, 8, 2), strides=(32, 16))
    y = floats(16)
    core.sim.run(MAPPED, kernel, 1, 1, [one, y])
    assert (y.reshape(4, 4) == x[2:6, 4:8]).all()


# --- the grid -----------------------------------------------------------------------------------------------------

# grid.sync() of cooperative groups, as its headers have it: the driver gives the place of the barrier in two registers
GRID = """
__device__ unsigned* place() {
    unsigned high, low;
    asm("mov.u32 %0, %%envreg1;" : "=r"(high));
    asm("mov.u32 %0, %%envreg2;" : "=r"(low));
    return (unsigned*)((unsigned long long)high << 32 | low) + 1;
}
__device__ void sync_grid() {
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned one = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1, old, now;
        asm volatile("atom.add.release.gpu.u32 %0, [%1], %2;" : "=r"(old) : "l"(place()), "r"(one) : "memory");
        do asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(now) : "l"(place()) : "memory");
        while (((old ^ now) & 0x80000000u) == 0);
    }
    __syncthreads();
}
__global__ void k(int* y, int* x) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
    for (int turn = 0; turn < 3; turn++) {
        x[i] = y[i] + i;
        sync_grid();
        y[i] = x[(i + 40) % n];
        sync_grid();
    }
}
"""


@pytest.mark.parametrize("mode", ["strict", *EXECUTORS])
def test_the_thread_blocks_of_a_grid_meet(mode: str) -> None:
    executor = None if mode == "strict" else mode
    if mode == "native" and compiler() is None:
        pytest.skip("no C compiler")
    y, i = np.zeros(96, np.int32), np.arange(96)
    file = core.sim.load(GRID)
    for _ in range(2):
        y[:] = 0
        file.run("k", 3, 32, [y, y.copy()], strict=mode == "strict", executor=executor)
        assert (y == (i + 40) % 96 + (i + 80) % 96 + (i + 120) % 96).all()


# --- benchmarks/foreign.py ----------------------------------------------------------------------------------------


def test_the_benchmark_counts_what_no_thread_has_reached(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("foreign", Path(__file__).parents[2] / "benchmarks/foreign.py")
    assert spec is not None and spec.loader is not None
    foreign = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(foreign)
    (tmp_path / "llm.c").mkdir()
    path = tmp_path / "llm.c" / "two.cu"
    path.write_text("""__global__ void one(float* y) { y[0] = 1; }
    __global__ void two(float* y, cudaTextureObject_t t, int n) { if (n) y[0] = tex1Dfetch<float>(t, 0); }""")
    ((name, found),) = foreign.Checkouts([tmp_path / "llm.c"], tmp_path).files()
    problem, lacks = foreign.linked(foreign.Checkouts([tmp_path / "llm.c"], tmp_path), name, found)
    assert (problem, [bool(lacking) for lacking in lacks.values()]) == ("", [False, True])
    assert "has no textures" in str(lacks)
