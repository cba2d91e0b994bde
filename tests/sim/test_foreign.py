"""Anybody's kernel: includes, C++ names, device variables, Python's own arguments, functions that CUDA brings."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import core.sim
from core import cli
from core.errors import BuildError
from core.kernels import toolkit
from core.sim import KernelError, Map, Pointer, PtxError
from core.sim.native.toolchain import compiler

NAMES = """
#include <cstdint>
#include <limits>
typedef unsigned long long u64;  // the prelude has one of its own
template <typename T, int N> __global__ void fill(T* y, int n) { if (threadIdx.x < n) y[threadIdx.x] = T(N); }
__global__ void put(float* y, float a) { y[threadIdx.x] = a * warpSize; }
__global__ void put(int* y, int a) { y[threadIdx.x] = a; }
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


def test_the_prelude_is_there_when_it_is_asked_for() -> None:
    source = "__global__ void k(float* y) { y[0] = warp_sum(1.0f); }"
    y = floats(1)
    core.sim.run(source, "k", 1, 32, [y], strict=False, prelude=True)
    assert y[0] == 32
    with pytest.raises(BuildError, match="warp_sum of corelm's prelude: prelude=True"):
        core.sim.load(source)


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


# --- functions of CUDA's own ------------------------------------------------------------------------------------


def test_a_failed_assert_is_an_error_with_text_line_and_thread() -> None:
    source = "#include <cassert>\n__global__ void k(int* y) {\n    assert(y[threadIdx.x] < 3);\n}"
    core.sim.run(source, "k", 1, 4, [np.array([0, 1, 2, 2], np.int32)])
    with pytest.raises(
        KernelError, match=r"kernel k, kernel\.cu:3 .*thread 3 of block 0: assertion `y\[threadIdx\.x\] < 3` fails"
    ) as error:
        core.sim.run(source, "k", 1, 4, [np.arange(4, dtype=np.int32)])
    assert error.value.kind == "assert"


PRINTS = r"""
#include <cstdio>
__global__ void k(const char* s) {
    if (threadIdx.x == 1) printf("none\n");
    int n = printf("%d|%5d|%-5d|%05d|%+d|%x|%#X|%u|%lld|%c|%%|%s|%8.3f|%.2e|%g|%p|%*d\n", -3, 42, 42, 42, 42, 255, 255,
                   4000000000u, 1ll << 40, 'q', "text", 3.14159, 12345.678, 0.5, (void*)16, 4, 7);
    printf("%d %hhd %hd\n", n, 511, 65535);
}
"""
PRINTED = (
    "-3|   42|42   |00042|+42|ff|0XFF|4000000000|1099511627776|q|%|text|   3.142|1.23e+04|0.5|0x10|   7\n17 -1 -1\n"
)


def test_printf_prints_as_c_does_once_in_strict_mode_too(capsys: pytest.CaptureFixture[str]) -> None:
    core.sim.run(PRINTS, "k", 1, 1, [None], strict=False)
    assert capsys.readouterr().out == PRINTED
    core.sim.run(
        '__global__ void k(int* y) { printf("%d", atomicAdd(y, 1)); }', "k", 1, 2, [np.zeros(1, np.int32)], order="warn"
    )
    assert capsys.readouterr().out == "01"


HEAP = """
__global__ void k(int* y, int n, int slip) {
    int* p = (int*)malloc(4 * n);
    for (int i = 0; i < n + slip; i++) p[i] = i * threadIdx.x;
    y[threadIdx.x] = p[n - 1];
    free(p);
    if (slip < 0) free(p);
}
__device__ int* kept;
__global__ void first() { kept = new int[2]; kept[1] = 7; }
__global__ void second(int* y) { y[0] = kept[1]; delete[] kept; }
__global__ void greedy(int* y) { y[0] = malloc(1 << 30) == nullptr; }
"""


def test_a_kernel_allocates_memory_that_stays_and_has_bounds() -> None:
    found, y = core.sim.load(HEAP), np.zeros(4, np.int32)
    found.run("k", 1, 4, [y, 3, 0])
    assert y.tolist() == [0, 2, 4, 6]
    found.run("first", 1, 1, [])
    found.run("second", 1, 1, [y])
    assert y[0] == 7
    found.run("greedy", 1, 1, [y])
    assert y[0] == 1
    with pytest.raises(KernelError, match="malloc") as error:
        found.run("k", 1, 1, [y, 3, 1])
    assert error.value.kind == "out of bounds"
    with pytest.raises(KernelError, match="free of an address that malloc did not give"):
        found.run("k", 1, 1, [y, 3, -1])


def test_what_is_missing_stops_a_kernel_only_where_a_thread_reaches_it() -> None:
    text = """.version 8.0\n.target sm_90a\n.address_size 64
.extern .func (.param .b32 r) elsewhere (.param .b32 a);
.visible .entry k(.param .u64 k_0, .param .u32 k_1) {
.reg .pred %p; .reg .b32 %r<4>; .reg .b64 %rd<2>;
ld.param.u64 %rd0, [k_0]; ld.param.u32 %r0, [k_1];
mov.u32 %r1, 1; st.global.u32 [%rd0], %r1;
setp.le.s32 %p, %r0, 3;
@%p bra DONE;
{ .param .b32 a0; .param .b32 r0; st.param.b32 [a0], %r0; call.uni (r0), elsewhere, (a0); ld.param.b32 %r2, [r0]; }
vadd.s32.s32.s32 %r2, %r2, %r0;
DONE: ret; }"""
    y = np.zeros(1, np.int32)
    core.sim.run(text, "k", 1, 1, [y, 3])
    assert y[0] == 1
    with pytest.raises(PtxError, match=r"cannot call .*elsewhere.*, which thread 0 of block 0 of kernel k has reached"):
        core.sim.run(text, "k", 1, 1, [y, 4])


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


# --- wmma -------------------------------------------------------------------------------------------------------

WMMA = """
#include <mma.h>
using namespace nvcuda::wmma;
template <int M, int N, int K, typename T, typename C, typename LA, typename LB>
__global__ void k(const T* a, const T* b, const C* c, C* d, int lda, int ldb) {
    fragment<matrix_a, M, N, K, T, LA> fa;
    fragment<matrix_b, M, N, K, T, LB> fb;
    fragment<accumulator, M, N, K, C> fc;
    load_matrix_sync(fa, a, lda);
    load_matrix_sync(fb, b, ldb);
    load_matrix_sync(fc, c, N, mem_row_major);
    mma_sync(fc, fa, fb, fc);
    for (int i = 0; i < fc.num_elements; i++) fc.x[i] += fc.x[i];
    store_matrix_sync(d, fc, N, mem_row_major);
}
"""
TYPES = {"__half": np.float16, "float": np.float32, "int": np.int32, "signed char": np.int8, "double": np.float64}


@pytest.mark.skipif(not toolkit.toolkit().include, reason="no headers of CUDA here")
@pytest.mark.parametrize(
    ("shape", "kind", "sums", "layouts"),
    [
        ((16, 16, 16), "__half", "float", ("row", "row")),
        ((16, 16, 16), "__half", "__half", ("col", "row")),
        ((32, 8, 16), "__half", "float", ("row", "col")),
        ((8, 32, 16), "signed char", "int", ("col", "col")),
        ((16, 16, 16), "__nv_bfloat16", "float", ("row", "col")),
        ((32, 8, 16), "__nv_bfloat16", "float", ("col", "row")),
        ((8, 8, 4), "double", "double", ("row", "col")),
    ],
)
def test_wmma_multiplies_in_every_shape_layout_and_type(shape: tuple, kind: str, sums: str, layouts: tuple) -> None:
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-8, 8, size).astype(np.float64) for size in ((m, k), (k, n), (m, n)))
    stored = []
    for matrix, layout in ((a, layouts[0]), (b, layouts[1])):
        laid = np.ascontiguousarray(matrix if layout == "row" else matrix.T)
        halves = (laid.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        stored.append(laid.astype(TYPES[kind]) if kind in TYPES else halves)
    given, out = c.astype(TYPES[sums]), np.zeros((m, n), TYPES[sums])
    name = f"k<{m},{n},{k},{kind},{sums},{layouts[0]}_major,{layouts[1]}_major>"
    core.sim.run(WMMA, name, 1, 32, [*stored, given, out, stored[0].shape[1], stored[1].shape[1]])
    assert (out == 2 * (a @ b + c)).all()


HALF_SUMS = """
__global__ void k(const unsigned* a, const unsigned* b, unsigned* c) {
    int t = threadIdx.x;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"
                 : "+r"(c[t]), "+r"(c[t + 32])
                 : "r"(a[t]), "r"(a[t + 32]), "r"(a[t + 64]), "r"(a[t + 96]), "r"(b[t]), "r"(b[t + 32]));
}
"""


def test_mma_sums_in_f16_round_once() -> None:
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(s).astype(np.float16) for s in ((16, 16), (16, 8), (16, 8)))
    lane = np.arange(32)
    row, pair = lane >> 2, 2 * (lane & 3)
    left = np.stack([a[row + 8 * (i % 2), (pair + 8 * (i // 2))[:, None].T + np.arange(2)[:, None]] for i in range(4)])
    right = np.stack([b[pair + 8 * i + np.arange(2)[:, None], row] for i in range(2)])
    sums = np.stack([c[row + 8 * i, pair + np.arange(2)[:, None]] for i in range(2)])
    packed = [np.ascontiguousarray(x.transpose(0, 2, 1)).view(np.uint32).reshape(-1) for x in (left, right, sums)]
    core.sim.run(HALF_SUMS, "k", 1, 32, packed)
    got = packed[2].view(np.float16).reshape(2, 32, 2)
    want = np.zeros((16, 8), np.float64)
    for k in range(16):
        want += a[:, k : k + 1].astype(np.float64) * b[k].astype(np.float64)
    want = (want + c).astype(np.float16)
    assert all((got[i, :, j] == want[row + 8 * i, pair + j]).all() for i in range(2) for j in range(2))


# --- the verb ---------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/simulator.md").read_text("utf-8")


def test_the_kernel_of_the_page_runs_by_its_commands_and_its_python(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = re.findall(r"^```cuda\n(.*?)^```$", PAGE, re.M | re.S)
    Path("scaled.cu").write_text(source)
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    for line in commands.splitlines():
        assert cli.run(shlex.split(line)[1:]) == 0, line
    assert np.load("y.npy").tolist() == [10] * 4
    (python,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    exec(python, {})
    assert "'add<2>(float*, float const*, int, float)'" in capsys.readouterr().out


SCALED = """
__constant__ float scale = 2;
__device__ int calls;
template <int N> __global__ void add(float* y, const float* x, int n, float a) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = N * x[i] * scale + a;
    if (i == 0) calls++;
}
__global__ void whole(int* y) { printf("%d\\n", y[0]++); }
"""


@pytest.fixture
def scaled(workdir: Path) -> Path:
    Path("scaled.cu").write_text(SCALED)
    np.save("x.npy", np.array([1, 2, 4], np.float32))
    Path("scaled.cu.npy").write_text(SCALED)
    return workdir


@pytest.mark.parametrize(
    ("words", "prints"),
    [
        ("", "whole(int*)\nadd<...>\n"),
        ("add<2> y=zeros:5 x=arange:5 5 0.5", "y  f32 5: 0.5 4.5 8.5 12.5 16.5\n"),
        ("add<2> y=zeros:4 y+1 3 0.5 --block 1 --grid 2", "y  f32 4: 0.5 0.5 0 0\n"),
        ("add<1> y=zeros:3 x.npy 3 f32:0 --set scale=f32:10 --get calls", "y  f32 3: 10 20 40\ncalls  u32 1: 1\n"),
        ("add<1> y=ones:3:bf16 null 0 0 --strict", "no array changed\n"),
        ("add<1> y=zeros:2 ones:2 2 -1.5", "y  f32 2: 0.5 0.5\n"),
        ("whole randint:2 --seed 3 --block 1 --show 1", "81\narg0  i32 2: 82 ...\n"),
    ],
)
def test_core_sim_runs_a_kernel_with_the_arguments_of_its_command_line(
    scaled: Path, capsys: pytest.CaptureFixture[str], words: str, prints: str
) -> None:
    assert cli.run(["sim", "scaled.cu", *words.split()]) == 0
    assert capsys.readouterr().out == prints


def test_core_sim_writes_arrays_counts_and_json(scaled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sim", "scaled.cu", "add<3>", "y=zeros:2x2", "x=ones:4", "4", "1", "--out", ".", "--count"]) == 0
    assert np.load("y.npy").tolist() == [[7, 7], [7, 7]]
    assert re.search(r"^ +6 .* if \(i < n\) y\[i\] = N \* x\[i\]", capsys.readouterr().out, re.MULTILINE)
    assert cli.run(["sim", "scaled.cu", "add<3>", "y=zeros:1", "x=ones:4:f32", "1", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == {"y": {"dtype": "f32", "values": [7.0]}}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("add y=zeros:1", 3, '"add" is a template of scaled.cu'),
        ("adds<1> 1", 3, 'no kernel "adds<1>" in scaled.cu; did you mean "add"?'),
        ("add<1> zeros:1 one 3 1", 2, '"one" is no argument of a kernel'),
        ("add<1> zeroes:1", 2, 'did you mean "zeros"'),
        ("add<1> zeros:1:f33", 2, 'did you mean "f32"'),
        ("add<1> zeros:1 zeros:1 3 1 --grid 4x4", 2, "expected one to three whole numbers"),
        ("add<1> y=zeros:1 x=ones:2 2 1", 4, "writes y[1], and y has 1 element"),
        ("add<1> u8:300 zeros:1 3 1", 2, "u8 does not hold 300"),
        ("add<1> zeros:1 scaled.cu.npy 1 1", 3, "scaled.cu.npy: no array of NumPy\n  hint: np.save"),
        ("add<1> zeros:1 zeros:1 1 1 --seed -1", 2, "-1 is not in the range x>=0"),
        ("add<1> zeros:1 zeros:1 1 1 --strict --executor native", 2, 'executor="native" does not go with strict'),
        ("add<1> zeros:1 zeros:1 1 1 --get call", 3, 'no variable "call" in scaled.cu; did you mean "calls"?'),
    ],
)
def test_core_sim_says_what_is_wrong(
    scaled: Path, capsys: pytest.CaptureFixture[str], words: str, code: int, says: str
) -> None:
    assert cli.run(["sim", "scaled.cu", *words.split()]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.cu", "", "has no kernel; expected a __global__ function"),
        ("host.cu", "__device__ int f(int x) { return x; }", "has no kernel; expected a __global__ function"),
        ("head.ptx", ".version 8.0\n.target sm_90\n.address_size 64\n", "has no kernel"),
        ("text.ptx", "some text", "is no PTX: expected lines with .version and .target, got 'some text'"),
    ],
)
def test_a_file_without_a_kernel_is_an_error(
    name: str, text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert cli.run(["sim", str(tmp_path / name)]) == 3
    done = capsys.readouterr()
    assert not done.out and name in done.err and words in done.err


POINTERS = """
typedef float (*F)(float);
__device__ float twice(float x) { return 2 * x; }
__device__ __noinline__ float half_of(float x) { return x / 2; }
__device__ F table[2] = {twice, half_of};
struct A { __device__ virtual float f(float x) { return x + 1; } };
struct B : A { __device__ float f(float x) override { return x + twice(x); } };
__global__ void k(float* y) { int i = threadIdx.x; y[i] = table[i % 2](y[i]); }
__global__ void of(float* y) { int i = threadIdx.x; A a; B b; A* p = i % 3 ? &a : &b; y[i] = p->f(y[i]); }
__global__ void wild(float* y, F f) { y[threadIdx.x] = f(1); }
"""


def executors() -> list[str]:
    return ["interpreter", *(["native"] if compiler() is not None else [])]


@pytest.mark.parametrize("executor", executors())
def test_functions_are_called_through_pointers_and_tables(executor: str) -> None:
    file, i = core.sim.load(POINTERS), np.arange(40, dtype=np.float32)
    table, virtual = i.copy(), i.copy()
    file.run("k", 1, 40, [table], strict=False, executor=executor)
    file.run("of", 1, 40, [virtual], strict=False, executor=executor)
    assert (table == np.where(i % 2, i / 2, 2 * i)).all() and (virtual == np.where(i % 3, i + 1, 3 * i)).all()
    with pytest.raises(KernelError, match="thread 0 of block 0: a call of 0x8, where no function") as error:
        file.run("wild", 1, 40, [table, np.uint64(8)], strict=False, executor=executor)
    assert error.value.kind == "call"


SPEAKS = r"""
#include <cassert>
#include <cstdio>
__global__ void k(float* y, const char* s, int most) {
    int i = threadIdx.x + blockIdx.x * 40, n = 0;
    if (i % 9 == 0) n = printf("%d of %d: %g %s\n", threadIdx.x, blockIdx.x, y[i], "text");
    __syncthreads();
    if (i % 20 == 0) printf("n %d\n", n);
    if (s && i == 70) printf("%s", s);
    assert(i < most);
    y[i] = n;
}
"""


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
@pytest.mark.parametrize(("string", "most"), [(None, 999), (77, 999), (None, 50)])
def test_printf_and_assert_are_the_same_on_the_machine(
    string: int | None, most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    results = []
    for executor in executors():
        y, words = np.arange(120, dtype=np.float32), ""
        try:
            core.sim.run(SPEAKS, "k", 3, 40, [y, string, most], strict=False, executor=executor)
        except KernelError as error:
            words = f"{error.kind}: {error} {error.details}"
        results.append((y.tobytes(), words, capsys.readouterr()))
    assert results[0] == results[1] and "9 of 0: 9 text\n" in results[0][2].out
    assert ("assertion `i < most` fails" in results[0][1]) == (most == 50)
