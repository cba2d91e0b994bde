"""Strict mode: atomics, sums in an order of chance, guesses of loops of atomicCAS, and one memory by two names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import core.sim
from core.errors import CoreError
from core.kernels.nvrtc import Kernel, compile_ptx
from core.sim import KernelError, Memory, Simulator


# --------------------------------------------------------------------------- the order of atomics
def test_a_thread_may_update_by_an_atomic_what_it_has_written():
    text = """extern "C" __global__ void k(float* y) {
        __shared__ float s[32];
        s[threadIdx.x] = y[threadIdx.x] = 1;
        atomicAdd(&s[threadIdx.x], 2.0f); atomicAdd(&y[threadIdx.x], s[threadIdx.x]);
        y[threadIdx.x] *= 2; }"""
    core.sim.run(text, "k", 1, 32, [y := np.zeros(32, np.float32)], strict=True)
    assert (y == 8).all()


ADDS = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    atomicAdd(&y[n], x[blockIdx.x * 128 + threadIdx.x]);
}"""


def test_a_sum_that_depends_on_the_order_of_float_atomics_is_an_error_or_a_warning_with_its_result():
    x = (np.random.default_rng(0).standard_normal(512) * 10.0 ** (np.arange(512) % 7)).astype(np.float32)
    with pytest.raises(KernelError) as caught:
        core.sim.run(ADDS, "kernel", 4, 128, [np.zeros(2, np.float32), x, np.int32(1)])
    assert caught.value.kind == "order" and "first y[1]" in str(caught.value)
    results = []
    for _ in range(2):
        y = np.zeros(2, np.float32)
        report = core.sim.run(ADDS, "kernel", 4, 128, [y, x, np.int32(1)], order="warn")
        assert [f.kind for f in report.findings] == ["order"] and "first y[1]" in str(report.findings[0])
        results.append(y[1])
    assert results[0] == results[1] and np.isclose(results[0], x.sum(dtype=np.float64), rtol=1e-4)
    exact = core.sim.run(ADDS, "kernel", 4, 128, [y, np.ones(512, np.float32), np.int32(0)], order="warn")
    assert exact.findings == []
    with pytest.raises(CoreError, match="error, warn"):
        core.sim.run(ADDS, "kernel", 4, 128, [y, x, np.int32(1)], order="ignore")


# --------------------------------------------------------------------------- loops around atomicCAS
CAS = """
extern "C" __global__ void kernel(TYPE* y, const TYPE* x, int n) {
    WORD* place = (WORD*)y;
    WORD old = *place, guess;
    do {
        guess = old;
        old = atomicCAS(place, guess, TO(FROM(guess) + 1));
    } while (guess != old);
}"""
WORDS = {
    "double": ("unsigned long long", "__double_as_longlong", "__longlong_as_double", np.float64),
    "float": ("unsigned", "__float_as_uint", "__uint_as_float", np.float32),
    "int": ("int", "int", "int", np.int32),
}


@pytest.mark.parametrize("kind", WORDS)
def test_the_first_guess_of_a_loop_of_atomic_cas_is_no_race(kind):
    word, to, of, numpy = WORDS[kind]
    source = CAS.replace("TYPE", kind).replace("WORD", word).replace("TO", to).replace("FROM", of)
    y = np.zeros(1, numpy)
    core.sim.run(source, "kernel", 3, 64, [y, y.copy(), np.int32(0)])
    assert y[0] == 192
    with pytest.raises(KernelError) as caught:  # the guess is no result, and another plain read is a race as ever
        core.sim.run(source.replace("} while", "y[1] = FROM(*place); } while").replace("FROM", of), "kernel", 3, 64,
                     [np.zeros(2, numpy), y.copy(), np.int32(0)])  # fmt: skip
    assert caught.value.kind == "race"


# --------------------------------------------------------------------------- memory that a kernel only reads
HALF_WRITTEN = """
extern "C" __global__ void kernel(float* y, const float* x, int n) {
    float* to = y;
    HOW
    to[threadIdx.x] = 1;
    y[threadIdx.x] = x[threadIdx.x ^ 64];
}"""
WAYS = {
    "not at all": ("", False),
    "by the same name": ("to = (float*)x;", True),
    "by one of two": ("to = n ? (float*)x : y;", True),
    "by a pointer that was put together": (
        'unsigned a, b; asm("mov.b64 {%0, %1}, %2;" : "=r"(a), "=r"(b) : "l"(x)); '
        'asm("mov.b64 %0, {%1, %2};" : "=l"(to) : "r"(a), "r"(b));',
        True,
    ),
    "by a pointer in memory": ("to = *(float**)(y + 128);", True),
}


@pytest.mark.parametrize("way", WAYS)
def test_reads_of_what_a_kernel_may_write_by_another_name_are_watched(way):
    how, race = WAYS[way]
    memory = Memory()
    y, x = (memory.allocate(1024, name, itemsize=4) for name in "yx")
    memory.write(y + 512, np.array([x], np.uint64))
    ptx = compile_ptx(Kernel(Path("kernel.cu"), "kernel", text=HALF_WRITTEN.replace("HOW", how))).ptx
    arguments = [np.uint64(y).tobytes(), np.uint64(x).tobytes(), np.int32(1).tobytes()]
    simulator = Simulator(ptx, memory)
    if not race:
        simulator.launch("kernel", (1,), (128,), arguments, strict=True)
        return
    with pytest.raises(KernelError) as caught:
        simulator.launch("kernel", (1,), (128,), arguments, strict=True)
    assert caught.value.kind == "race"


def test_two_parameters_of_one_buffer_are_one_memory():
    both = np.zeros(128, np.float32)
    with pytest.raises(KernelError) as caught:
        core.sim.run(HALF_WRITTEN.replace("HOW", ""), "kernel", 1, 128, [both, both, np.int32(0)])
    assert caught.value.kind == "race"
