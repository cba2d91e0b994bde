"""Functions that CUDA brings, assert, printf and malloc, and calls of functions through pointers."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim
from core.sim import KernelError, PtxError
from core.sim.native.toolchain import compiler


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


@pytest.mark.parametrize(
    ("instruction", "says"),
    [
        ("tex.1d.v4.f32.s32 {%f0, %f0, %f0, %f0}, [%rd0, {%r0}];", "has no textures: `tex.1d"),
        ("suld.b.2d.b32.trap {%r0}, [%rd0, {%r0, %r0}];", "has no surfaces: `suld"),
        ("vadd4.s32.s32.s32 %r0, %r0, %r0, %r0;", "has no video instructions: `vadd4"),
        ("call.uni (r), __cudaCDP2LaunchDeviceV2, (r);", "launches no kernel from a kernel: `call.uni"),
    ],
)
def test_what_is_missing_is_called_by_its_name(instruction: str, says: str) -> None:
    text = f""".version 8.0\n.target sm_90a\n.address_size 64
.visible.entry k(.param.u32 k_0) {{ .reg.b32 %r<2>; .reg.f32 %f0; .reg.b64 %rd0; .param.align 4 .b8 r[4];
{instruction}\nret; }}"""
    with pytest.raises(PtxError, match=says) as error:
        core.sim.run(text, "k", 1, 1, [3], strict=False)
    assert "did you mean" not in str(error.value) and error.value.hint and "core/sim" not in error.value.hint


def test_directives_need_no_blank_before_a_dot() -> None:
    """As cuda_fp16.h writes `.reg.b16 hl, hu;`."""
    text = """.version 8.0\n.target sm_90a\n.address_size 64
.global.align 4 .u32 add[2] = {40, 2};
.visible.entry k(.param.u64 k_0) { .reg.b16 lo, hi; .reg.b32 %r<3>; .reg.b64 %rd0; .shared.align 4 .b32 s;
.local.b32 here; ld.param.u64 %rd0, [k_0]; ld.global.u32 %r0, [%rd0]; mov.b32 {lo, hi}, %r0; mov.b32 %r1, {hi, lo};
st.shared.b32 [s], %r1; ld.shared.b32 %r1, [s]; st.local.b32 [here], %r1; ld.local.b32 %r1, [here];
ld.global.u32 %r2, [add]; add.u32 %r1, %r1, %r2; st.global.u32 [%rd0], %r1; ret; }"""
    y = np.array([0x10002], np.uint32)
    core.sim.run(text, "k", 1, 1, [y])
    assert y[0] == 0x20001 + 40


RECURSIVE = """
__device__ __noinline__ int sum(int n) { return n < 1 ? 1 : sum(n - 1) * 3 + sum(n - 2); }
__global__ void k(int* y) { int i = threadIdx.x; if (y[i] > 0) y[i] = sum(y[i]); }
"""


@pytest.mark.parametrize("executor", ["interpreter", "native"])
def test_a_recursive_function_stops_the_thread_that_recurses(executor: str) -> None:
    if executor == "native" and compiler() is None:
        pytest.skip("no C compiler")
    y = np.zeros(4, np.int32)
    core.sim.run(RECURSIVE, "k", 1, 4, [y], strict=False, executor=executor)
    y[2] = 1
    with pytest.raises(KernelError, match=r"thread 2 of block 0: sum\(int\) calls itself.*no call stack") as error:
        core.sim.run(RECURSIVE, "k", 1, 4, [y], strict=False, executor=executor)
    assert error.value.kind == "call"


POINTERS = """
typedef float (*F)(float);
__device__ float twice(float x) { return 2 * x; }
__device__ __noinline__ float half_of(float x) { return x / 2; }
__device__ F table[2] = {twice, half_of};
struct A { __device__ virtual float f(float x) { return x + 1; } };
struct B : A { __device__ float f(float x) override { return x + twice(x); } };
__global__ void k(float* y) { int i = threadIdx.x; y[i] = table[i % 2](y[i]); }
__global__ void of(float* y) { int i = threadIdx.x; A a; B b; A* p = i % 3 ? &a : &b; y[i] = p->f(y[i]); }
__global__ void wild(float* y, int last) {
    int i = threadIdx.x;
    F f = i < last ? table[i % 2] : (F)(8ull * i);
    y[i] = f(1);
}
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
    with pytest.raises(KernelError, match="thread 2 of block 0: a call of 0x10, where no function") as error:
        file.run("wild", 1, 40, [table, 2], strict=False, executor=executor)
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
