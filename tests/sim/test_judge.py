"""`core judge`: each question has a submission that fails it and it alone; docs/judge.md lists all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from judged import RIGHT, SCALE, failure, heard, kernel

from core.judge import KernelLaunch, Problem
from core.judge.problem import load_problem
from core.judge.questions import CHECKS
from core.judge.verdict import QUESTIONS

SUMS = Problem(
    truth=lambda x: x.sum(1),
    inputs={"x": "rows C"},
    outputs={"y": "rows"},
    launches=KernelLaunch("sums", "y x C", grid="rows", block=64),
    sizes=[{"rows": 1, "C": 1}, {"rows": 2, "C": 100}],
)
SUM = """extern "C" __global__ void sums(float* y, const float* x, int C) {
    __shared__ float s[64];
    float sum = 0;
    for (int c = threadIdx.x; c < C; c += 64) sum += x[blockIdx.x * C + c];
    s[threadIdx.x] = sum;
    for (int o = 32; o > 0; o /= 2) {
        __syncthreads();
        if (threadIdx.x < o) s[threadIdx.x] += s[threadIdx.x + o];
    }
    if (threadIdx.x == 0) y[blockIdx.x] = s[0];
}"""


START = 'asm volatile("griddepcontrol.launch_dependents; griddepcontrol.wait;" ::: "memory");'  # as dependent_start()
STARTS = kernel(f"{START} if (i < n) y[i] = 2 * x[i];")


@pytest.mark.parametrize(
    "problem, text", [(SCALE, RIGHT), (SUMS, SUM), (SCALE, STARTS)], ids=["scale", "sums", "dependent start"]
)
def test_a_right_kernel_passes_every_question(problem: Problem, text: str) -> None:
    found = heard(problem, text)
    assert found.passed, failure(found)
    assert [check.name for check in found.checks] == list(QUESTIONS) == list(CHECKS)
    assert {c.name for c in found.checks if c.state == "left out"} == ({"real"} if problem is SUMS else set())


# question -> (problem, submission, words of the finding): each is wrong in one way that this question sees first
CACHE = "__device__ float kept[8192]; __device__ const float* key[8192]; __device__ int calls[8192];"
ASM_F16 = 'asm("{.reg .b16 h; cvt.rn.f16.f32 h, %0; cvt.f32.f16 %0, h;}" : "+f"(v));'
TF32 = (
    'asm("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %4}, {%4}, {%0, %1, %2, %3};"'
    ' : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(0));'
)
FAILING: dict[str, list[tuple[Problem, str, str]]] = {
    "compiles": [
        (SCALE, kernel("if (i < n) y[i] = 2 * x[i]"), r'  kernel.cu\(4\): error: expected a ";"'),
        (SCALE, RIGHT.replace("scale", "skale"), 'no kernel "scale" in .*did you mean "skale"'),
        (SCALE, kernel("", parameters="float* y, int n"), "3 arguments; the kernel takes 2: float\\* y, int n"),
        (SCALE, kernel("", parameters="double* y, const float* x, int n"), "argument 1 is a tensor of f32.*double"),
        (SCALE, kernel("", parameters="float* y, const float* x, long long n"), "scalar of int32.*long long n"),
        (SCALE, f"{RIGHT}\nvoid launch(float* y, float* x, int n) {{ scale<<<1, n>>>(y, x, n); }}", "host code, `<<<`"),
        (SCALE, f'#include "/etc/passwd"\n{RIGHT}', "includes \"/etc/passwd\""),
    ],
    "alone": [
        (SCALE, kernel("if (i < n) y[i] = clock64() ? 2 * x[i] : 0;"), "kernel.cu:3 reads %clock64"),
    ],
    "precision": [
        (SCALE, kernel(f"if (i < n) {{ float v = x[i]; {ASM_F16} y[i] = 2 * v; }}"), "rounds f32 to f16"),
        (SCALE, kernel(f"float d[4] = {{}}; {TF32} if (i < n) y[i] = 2 * x[i] + d[0];"),
         "multiplies tf32 on tensor cores"),
        (SCALE, kernel("if (i < n) y[i] = 2 * x[i] + 0 * __sinf(x[i]);"), "sin.approx, on a GPU absolute error"),
    ],
    "bounds": [
        (SCALE, kernel("y[i] = 2 * x[i];"), r"thread 1 of block 0 reads x\[1\], and x has 1 element"),
        (SCALE, kernel("if (i <= n) y[i] = 2 * x[i < n ? i : 0];"), r"thread 1 of block 0 writes y\[1\]"),
    ],
    "races": [
        (SUMS, SUM.replace("__syncthreads();", "__syncwarp();"), r"race.*s\["),
        (SCALE, kernel("for (int k = 0; k < n; k++) y[k] = 2 * x[k] + i * 0.0f;"), r"y\["),
        (SUMS, SUM.replace("s[threadIdx.x] = sum;", "if (sum != 0.125f) if (threadIdx.x < 40) s[threadIdx.x] = sum;"),
         "nothing has written"),
        (SCALE, kernel(f"if (i < n) y[i] = 2 * x[i]; {START}"), "is accessed before griddepcontrol.wait"),
    ],
    "runs": [
        (SUMS, SUM.replace("__syncthreads();\n        if (threadIdx.x < o) s",
                           "if (threadIdx.x < o) __syncthreads();\n        if (threadIdx.x < o) s"), "sync"),
        (SCALE, kernel('asm("vadd.s32.s32.s32 %0, %1, %1;" : "=r"(n) : "r"(n)); if (i < n) y[i] = 2 * x[i];'), "vadd"),
        (SCALE, kernel("while (n) if (i < n) y[i] = 2 * x[i]; y[0] = 1;"), "still looping"),
    ],
    "written": [
        (SCALE, kernel("if (i < n && i < 128) y[i] = 2 * x[i];"),
         r"131 of 259 elements not written, the first at \[128\]"),
        (SUMS, SUM.replace("y[blockIdx.x] =", "if (C == 1) y[blockIdx.x] ="), "2 of 2 elements not written"),
    ],
    "unchanged": [
        (SCALE, kernel("if (i < n) { y[i] = 2 * x[i]; ((float*)x)[i] = 0; }"), "changed x, which is an input"),
    ],
    "awkward": [
        (SCALE, kernel("if (i < n) y[i] = 3 * x[i];"), "got is 1.5 times the expected value"),
        (SCALE, kernel("if (i < n) y[i] += 2 * x[i];"), "does the kernel read one before it writes it"),
        (SUMS, SUM.replace("C; c += 64", "C / 2 * 2; c += 64"), r"in: rows = 1, C = 1"),
        (SCALE, kernel("if (i < n) y[i] = 2 * x[i] + (i == 200 ? 0.03f : 0);"), r"worst at \[200\]"),
    ],
    "guards": [
        # x[512] is past x, and in the usual arrangement within y, which begins as not-a-number
        (SCALE, kernel("if (i < n) { float far = n > 9 ? x[n * 2] : 0; y[i] = 2 * x[i] + (far > 1e30f); }"),
         r"x\[518\]"),
    ],
    "repeatable": [
        (SCALE, kernel("if (i < n) y[i] = 2 * x[i] + (y[i] == y[i] ? 1 : 0);"),
         "a run whose outputs held something else"),
        (Problem(truth=lambda x: x.sum(keepdims=True), inputs={"x": "n"}, outputs={"y": "1"}, zeroed=["y"],
                 launches=KernelLaunch("scale", "y x n", grid="cdiv(n, 128)", block=128), sizes=[{"n": 700}]),
         kernel("if (i < n) atomicAdd(y, x[i]);"), "depends on the order"),
    ],
    "fresh": [
        (SCALE, kernel("if (i < n) { if (key[i] != x) { kept[i] = 2 * x[i]; key[i] = x; } y[i] = kept[i]; }", CACHE),
         "gives the result of the call before it"),
        (SCALE, kernel("if (i < n) y[i] = 2 * x[i] + 0.25f * calls[i]++;", CACHE), "keeps its value"),
        (SCALE, kernel("if (i < n) { float k = x[7 % n]; if (found[i] != k) { kept[i] = 2 * x[i]; found[i] = k; } "
                       "y[i] = kept[i]; }", f"{CACHE} __device__ float found[8192];"),
         "a fourth call with one new element of each input gives the result of the call before it"),
    ],
    "hard": [
        (SCALE, kernel("if (i < n) y[i] = x[i] == x[i] ? 2 * x[i] : 0;"), "in: n = 259, nan contents"),
        (SCALE, kernel("if (i < n) y[i] = 4 * (0.5f * fminf(fmaxf(x[i], -1e30f), 1e30f));"), "nan contents"),
        (SCALE, kernel("if (i < n) y[i] = fabsf(x[i]) < 1e-30f ? 0 : 2 * x[i];"), "denormal contents"),
        (SCALE, kernel("if (i < n) y[i] = fabsf(x[i]) > 90 && fabsf(x[i]) < 200 ? 0 : 2 * x[i];"),
         "distant contents"),
    ],
    "real": [
        (SCALE, kernel("if (i < n && i < 4096) y[i] = 2 * x[i];"), r"1,904 of 6,000 elements not written"),
        (SCALE, kernel("if (i < n) y[i] = (i > 5000 ? 1 : 2) * x[i];"), "in: n = 6,000"),
    ],
}  # fmt: skip
CASES = [(name, i, *case) for name, cases in FAILING.items() for i, case in enumerate(cases)]


def test_every_question_has_a_submission_that_fails_it() -> None:
    assert list(FAILING) == list(QUESTIONS)


@pytest.mark.parametrize("name, number, problem, text, words", CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_submission_fails_the_question_that_is_about_its_fault(
    name: str, number: int, problem: Problem, text: str, words: str
) -> None:
    found = heard(problem, text)
    which, lines = failure(found)
    assert which == name and re.search(words, lines, re.DOTALL), (which, lines)
    assert not found.passed and "Traceback" not in lines


@pytest.fixture(autouse=True)
def few_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORELM_SIM_LIMIT", "5000")


# --- docs/judge.md ---------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/judge.md").read_text("utf-8")


def test_the_kernel_of_the_page_passes_its_problem_and_fails_without_the_maximum_or_the_barrier(tmp_path: Path) -> None:
    (problem,) = re.findall(r"^```python\n(# softmax.*?)^```$", PAGE, re.M | re.S)
    (text,) = re.findall(r"^```cuda\n(// mine.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "softmax.py").write_text(problem)
    asked = load_problem(tmp_path / "softmax.py")
    found = heard(asked, text)
    assert found.passed, failure(found)
    assert "ex2.approx" in found.notes[0]
    assert failure(heard(asked, text.replace("top = reduced(top, s, true);", "top = 0;")))[0] == "hard"
    before = "    __syncthreads();  // before s is written again\n"
    assert failure(heard(asked, text.replace(before, "")))[0] == "races"


def test_the_page_lists_every_question_and_every_field() -> None:
    table = PAGE[PAGE.index("## The questions") :]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(QUESTIONS)
    listed = {name for line in re.findall(r"^\| (`[^|]*) \|", PAGE, re.M) for name in re.findall(r"`(\w+)`", line)}
    assert set(vars(SCALE)) <= listed
