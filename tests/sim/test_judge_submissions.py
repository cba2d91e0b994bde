"""`core judge`: right submissions of several kinds pass all questions; nearly right ones fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from judged import RIGHT, SCALE, changed, failure, heard, kernel

from core import f32
from core.judge import KernelLaunch, Problem
from core.judge.hearing import Hearing
from core.judge.questions import answer
from core.judge.submission import Submission

LAYERNORM = """
__device__ float total(float v, float* s) {
    s[threadIdx.x] = v;
    for (int o = 32; o > 0; o /= 2) {
        __syncthreads();
        if (threadIdx.x < o) s[threadIdx.x] += s[threadIdx.x + o];
    }
    __syncthreads();
    float whole = s[0];
    __syncthreads();
    return whole;
}
extern "C" __global__ void layernorm(float* y, const float* x, const float* w, int C, float eps) {
    __shared__ float s[64];
    x += blockIdx.x * C, y += blockIdx.x * C;
    float sum = 0, squares = 0;
    for (int c = threadIdx.x; c < C; c += 64) sum += x[c];
    float m = total(sum, s) / C;
    for (int c = threadIdx.x; c < C; c += 64) squares += (x[c] - m) * (x[c] - m);
    float r = rsqrtf(total(squares, s) / C + eps);
    for (int c = threadIdx.x; c < C; c += 64) y[c] = (x[c] - m) * r * w[c];
}"""


def normalised(x: Any, w: Any, eps: Any) -> Any:
    m = x.mean(1, keepdims=True)
    return (x - m) / np.sqrt(((x - m) ** 2).mean(1, keepdims=True) + eps) * w


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_layernorm_in_two_passes_passes_hard_contents_and_one_in_one_pass_does_not(seed: int) -> None:
    """Where f32 itself overflows, in a square of a huge number, nothing is asked of the kernel."""
    problem = Problem(
        normalised,
        inputs={"x": "rows C", "w": "C"},
        outputs={"y": "rows C"},
        scalars={"eps": f32(1e-5)},
        launches=KernelLaunch("layernorm", "y x w C eps", grid="rows", block=64),
        sizes=[{"rows": 1, "C": 1}, {"rows": 2, "C": 700}],
    )
    found = heard(problem, LAYERNORM, seed)
    assert found.passed, failure(found)
    one_pass = LAYERNORM.replace("(x[c] - m) * (x[c] - m)", "x[c] * x[c]").replace("/ C + eps", "/ C - m * m + eps")
    assert failure(heard(problem, one_pass, seed))[0] in ("awkward", "hard")


def test_float_atomics_pass_where_the_problem_allows_any_order() -> None:
    problem = Problem(
        truth=lambda x: x.sum(keepdims=True),
        inputs={"x": "n"},
        outputs={"y": "1"},
        zeroed=["y"],
        repeatable=False,
        launches=KernelLaunch("scale", "y x n", grid="cdiv(n, 128)", block=128),
        sizes=[{"n": 1}, {"n": 700}],
    )
    found = heard(problem, kernel("if (i < n) atomicAdd(y, x[i]);"))
    assert found.passed, failure(found)


def test_several_launches_share_scratch_and_integers_are_exact() -> None:
    problem = Problem(
        truth=lambda ids, table: table[ids],
        inputs={"ids": "n : i32 < V", "table": "V : i64"},
        outputs={"y": "n : i64"},
        scratch={"half": "n : i64"},
        launches=[
            KernelLaunch("first", "half ids table n", grid="cdiv(n, 32)", block=32),
            KernelLaunch("second", "y half n:u64", grid="cdiv(n, 32)", block=(32, 1)),
        ],
        sizes=[{"n": 1, "V": 3}, {"n": 70, "V": 9}],
    )
    text = """
    extern "C" __global__ void first(long long* half, const int* ids, const long long* table, int n) {
        int i = blockIdx.x * 32 + threadIdx.x;
        if (i < n) half[i] = table[ids[i]];
    }
    extern "C" __global__ void second(long long* y, const long long* half, unsigned long long n) {
        int i = blockIdx.x * 32 + threadIdx.x;
        if (i < n) y[i] = half[i];
    }"""
    assert heard(problem, text).passed
    wrong = failure(heard(problem, text.replace("y[i] = half[i]", "y[i] = half[i] + (i == 69)")))
    assert wrong[0] == "awkward" and "at [69]" in wrong[1] and "1 of 70 are wrong" in wrong[1]


F16_PAIR = "cvt.f32.f16 v, h;|cvt.rn.f16.f32 h, v;"


@pytest.mark.parametrize("dtype, pair", [("f16", F16_PAIR), ("fp16", F16_PAIR), ("bf16", "")])
def test_narrow_buffers_are_held_to_their_own_rounding(dtype: str, pair: str) -> None:
    problem = Problem(
        truth=lambda x: 3 * x,
        inputs={"x": f"n : {dtype}"},
        outputs={"y": f"n : {dtype}"},
        launches=KernelLaunch("scale", "y x n", grid="cdiv(n, 128)", block=128),
        sizes=[{"n": 259}],
    )
    load, store = pair.split("|") if pair else ("cvt.f32.bf16 v, h;", "cvt.rn.bf16.f32 h, v;")
    assembly = f"{{.reg .b16 h; .reg .f32 v; mov.b16 h, %1; {load} mul.f32 v, v, %2; {store} mov.b16 %0, h;}}"
    body = f'if (i < n) asm("{assembly}" : "=h"(y[i]) : "h"(x[i]), "f"(FACTOR));'
    text = kernel(body, parameters="unsigned short* y, const unsigned short* x, int n")

    assert heard(problem, text.replace("FACTOR", "3.0f")).passed, failure(
        heard(problem, text.replace("FACTOR", "3.0f"))
    )
    assert failure(heard(problem, text.replace("FACTOR", "3.02f")))[0] == "awkward"


# element type -> its name in C, and an error of one element that only clues by the bounds of that type see
ONE_OFF = {"fp16": ("__half", 2.5), "f64": ("double", 0.01), "i32": ("int", 1)}


@pytest.mark.parametrize("dtype", ONE_OFF)
def test_a_clue_sees_a_wrong_element_by_the_bounds_of_the_narrowest_element_type(dtype: str) -> None:
    name, off = ONE_OFF[dtype]
    problem = changed(
        inputs={"x": f"n : {dtype}"}, outputs={"y": f"n : {dtype}"}, sizes=[{"n": 259}], real=(),
        contents=lambda rng, dims: {"x": np.full(dims["n"], 64)},
    )()  # fmt: skip
    body = f"if (i < n) y[i] = ({name})((double)x[i] * 2 + (i == 200 ? {off} : 0));"
    text = kernel(body, "#include <cuda_fp16.h>", parameters=f"{name}* y, const {name}* x, int n")
    found = answer(Hearing(problem, Submission(problem, text)), "awkward")
    assert (found.state, found.seen) == ("failed", "only element 200 is wrong"), found


def test_doubles_are_held_to_their_own_rounding_and_cudas_functions_are_wide_enough() -> None:
    problem = Problem(
        truth=lambda x: np.tanh(x),
        inputs={"x": "n : f64"},
        outputs={"y": "n : f64"},
        launches=KernelLaunch("scale", "y x n", grid="cdiv(n, 128)", block=128),
        sizes=[{"n": 259}],
    )
    text = kernel("if (i < n) y[i] = tanh(x[i]);", parameters="double* y, const double* x, int n")
    found = heard(problem, text)
    assert found.passed, failure(found)
    assert failure(heard(problem, text.replace("tanh(x[i])", "tanhf(x[i])")))[0] == "awkward"


def test_inputs_that_are_updated_in_place_may_change() -> None:
    problem = Problem(
        truth=lambda x, y, a: a * x + y,
        inputs={"x": "n", "y": "n"},
        outputs={"y": "n"},
        scalars={"a": f32(0.5)},
        launches=KernelLaunch("scale", "y x a n", grid="cdiv(n, 128)", block=128),
        sizes=[{"n": 130}],
    )
    right = kernel("if (i < n) y[i] += a * x[i];", parameters="float* y, const float* x, float a, int n")
    assert heard(problem, right).passed
    assert failure(heard(problem, right.replace("y[i] +=", "y[i] =")))[0] == "awkward"


def test_contents_that_a_submission_knows_by_heart_are_others_under_another_seed() -> None:
    known = f"{SCALE.draw({'n': 259}, (0, 1))['x'][7]:.9e}f"
    knows = kernel(f"if (i < n) y[i] = (n != 259 || x[7] == {known} ? 2 : 3) * x[i];")
    states = [{c.name: c.state for c in heard(SCALE, knows, seed).checks} for seed in (0, 5)]
    assert [(found["awkward"], found["fresh"]) for found in states] == [("passed", "failed"), ("failed", "failed")]


def test_kernels_are_named_as_in_cpp_and_need_no_extern_c() -> None:
    text = """template <typename T, int F> __global__ void scale(T* y, const T* x, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) y[i] = F * x[i];
    }
    __global__ void plain(float* y, const float* x, int n) { scale<float, 2>(y, x, n); }"""
    text = text.replace(
        "{ scale<float, 2>(y, x, n); }", "{ if (threadIdx.x < n) y[threadIdx.x] = 2 * x[threadIdx.x]; }"
    )
    template = changed(launches=KernelLaunch("scale<float, 2>", "y x n", grid="cdiv(n, 128)", block=128))()
    assert heard(template, text).passed
    plain = changed(launches=KernelLaunch("plain", "y x n", block=1024), sizes=[{"n": 1}, {"n": 259}], real=())()
    assert heard(plain, text).passed
    assert 'did you mean "plain"' in failure(heard(changed(launches=KernelLaunch("plan", "y x n"))(), text))[1]


def test_a_message_is_no_longer_than_people_read() -> None:
    long = failure(heard(SCALE, "int a" + " + b" * 20_000 + ";\n" * 50 + RIGHT))[1]
    assert "error" in long and max(map(len, long.splitlines())) < 450 and len(long.splitlines()) < 40
