"""`core judge`: each question has a submission that fails it and it alone, and right submissions pass all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged import RIGHT, SCALE, changed, failure, heard, kernel

from core import f32
from core.judge import KernelLaunch, Problem
from core.judge.hearing import Hearing
from core.judge.problem import load_problem
from core.judge.questions import CHECKS, answer, hear
from core.judge.submission import Submission, included
from core.judge.verdict import QUESTIONS
from core.kernels.nvrtc import Kernel, compile_ptx

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


@pytest.mark.parametrize("problem, text", [(SCALE, RIGHT), (SUMS, SUM)], ids=["scale", "sums"])
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
        (SCALE, kernel('asm volatile("griddepcontrol.launch_dependents;"); if (i < n) y[i] = 2 * x[i];'),
         "lets the next kernel start early"),
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


# --- right submissions ----------------------------------------------------------------------------------------------


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


# --- what a submission may include -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '#include "/etc/passwd"',
        "#include </etc/passwd>",
        '#include "../secret.h"',
        "#include <../../secret.h>",
        '#include "problem.py"',
        '#include "other.cu"',
        '#  include  "/etc/passwd"',
        '#inc\\\nlude "/etc/passwd"',
        '/* */ # /* */ include /* */ "/etc/passwd"',
        '/*\n*/#include "/etc/passwd"',
        '%:include "/etc/passwd"',
        '#define SECRET "/etc/passwd"\n#include SECRET',
        '#if __has_include("/etc/passwd")\n#endif',
        '#include_next "/etc/passwd"',
        '#import "/etc/passwd"',
        '#embed "/etc/passwd"',
        'const char* s = R"(/*)";\n#include "/etc/passwd"\n//*/',
    ],
)
def test_a_submission_reads_no_file_but_headers_beside_it(text: str) -> None:
    which, lines = failure(heard(SCALE, f"{text}\n{RIGHT}"))
    assert which == "compiles" and "includes" in lines and "root" not in lines, lines


@pytest.mark.parametrize("lines", ["#line 3", "# 3", '.file 1 "SECRET"'])
def test_a_message_quotes_no_file_that_a_submission_claims_to_be(lines: str, tmp_path: Path) -> None:
    """A file of another folder, or a file beside the submission that is not a header."""
    path = tmp_path / "mine" / "mine.cu"
    path.parent.mkdir()
    for folder in (tmp_path, path.parent):
        secret = folder / "secret.py"
        secret.write_text("the truth\n" * 9)
        wrong = kernel("y[i] = 2 * x[i];")
        if lines.startswith("."):
            ptx = compile_ptx(Kernel(Path("k.cu"), "scale", text=wrong)).ptx
            path.write_text(re.sub(r'\.file\s+1 "[^"]*"', f'.file 1 "{secret}"', ptx))
        else:
            path.write_text(f'{lines} "{secret}"\n{wrong}')
        which, text = failure(hear(SCALE, Submission.read(SCALE, path)))
        assert which == "bounds" and "secret.py" in text and "the truth" not in text, text


@pytest.mark.parametrize("way", ['#include "/etc/passwd"', '#include "link.cuh"'])
def test_headers_beside_a_submission_reach_no_other_file_either(way: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "mine", tmp_path / "secret.txt"
    folder.mkdir()
    secret.write_text("root of all\n")
    (folder / "link.cuh").symlink_to(secret)
    (folder / "one.cuh").write_text('#include "two.hpp"\n')
    (folder / "two.hpp").write_text(f"{way}\n")
    (folder / "mine.cu").write_text(f"#include <one.cuh>\n{RIGHT}")
    which, text = failure(hear(SCALE, Submission.read(SCALE, folder / "mine.cu")))
    assert which == "compiles" and "includes" in text and "root" not in text, text


def test_headers_of_its_own_folder_are_let_in(tmp_path: Path) -> None:
    (tmp_path / "factor.cuh").write_text("#define FACTOR 2\n")
    path = tmp_path / "mine.cu"
    path.write_text('#include "factor.cuh"\n// #include "../not.h" in a comment\n' + RIGHT.replace("2 *", "FACTOR *"))
    assert hear(SCALE, Submission.read(SCALE, path)).passed
    assert [*included('#include <cuda_fp16.h>\n# include "a/b.cuh"')] == ["<cuda_fp16.h>", '"a/b.cuh"']


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
