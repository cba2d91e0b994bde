"""The op check on kernels of a beginner: what it says first, and the lines that no example reaches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from core.loader import load_registry
from core.registry import Registry
from core.testing.check import check_variant
from core.testing.compare import BOUNDS, bounds_for, difference

# --- kernels ---------------------------------------------------------------------------------------------------------

REAL = load_registry(only=())
STUDENT = """
extern "C" __global__ void y128(elem* y, float* mean, float* rstd, const elem* x, const elem* weight, const elem* bias,
                                int C, float eps) {
    __shared__ float s[128];
    int row = blockIdx.x, c = threadIdx.x;
    float v = c < C ? float(x[row * C + c]) : 0;
    s[c] = v;
    __syncthreads();
    float m = 0, q = 0;
    for (int i = 0; i < min(C, 128); i++) m += s[i];
    m /= C;
    for (int i = 0; i < min(C, 128); i++) q += (s[i] - m) * (s[i] - m);
    float r = rsqrtf(q / C + eps);
    if (c == 0) mean[row] = m, rstd[row] = r;
    if (c < C) y[row * C + c] = (v - m) * r * float(weight[c]) + (bias ? float(bias[c]) : 0.f);
}

extern "C" __global__ void dx128(elem* dx, const elem* dy, const elem* x, const elem* weight, const float* mean,
                                 const float* rstd, int C, int add) {
    int row = blockIdx.x, c = threadIdx.x;
    float m = mean[row], r = rstd[row], dn = 0, n = 0;
    if (c < C) dn = dy[row * C + c] * weight[c], n = (x[row * C + c] - m) * r;
    float along_one = block_sum(dn) / C, along_n = block_sum(dn * n) / C;
    if (c < C) dx[row * C + c] = (add ? float(dx[row * C + c]) : 0) + r * (dn - along_one - n * along_n);
}

extern "C" __global__ void endless(elem* y, float* mean, float* rstd, const elem* x, const elem* weight,
                                   const elem* bias, int C, float eps) {
    while (eps > 0) {
        if (C < 0) break;
        __syncthreads();
    }
    y[threadIdx.x] = 0;
}
"""
KERNELS = """
from core import Variant, f32, i32
class Student(Variant):
    op, name, base, priority, source = "layernorm", "student", "naive", -1, "student.cu"
    def forward(self, t, launch):
        launch("{forward}", t.y, t.mean, t.rstd, t.x, t.weight, t.bias, i32(t.C), f32(t.eps), grid=t.rows, block=128)
class Backward(Variant):
    op, name, base, priority, source = "layernorm", "backward128", "naive", -1, ("student.cu", "layernorm.cu")
    def backward(self, t, launch):
        if t.dx is not None:
            launch("dx128", t.dx, t.dy, t.x, t.weight, t.mean, t.rstd, i32(t.C), i32(t.add_dx), grid=t.rows, block=128)
        if t.dweight is not None or t.dbias is not None:
            given = (t.dy, t.x, t.mean, t.rstd, i32(t.rows), i32(t.C), i32(t.add_dweight), i32(t.add_dbias))
            launch("naive_dparams", t.dweight, t.dbias, *given, grid=(t.C + 63) // 64, block=64)
def core_variants():
    return [Student, Backward]
"""


def students(tmp_path: Path, forward: str = "y128", text: str = STUDENT) -> Registry:
    folder = tmp_path / "students"
    folder.mkdir()
    shutil.copy(REAL.variant("layernorm", "naive").folder / "layernorm.cu", folder)
    (folder / "student.cu").write_text(text)
    (folder / "__init__.py").write_text(KERNELS.replace("{forward}", forward))
    return load_registry([str(folder)], only=())


@pytest.mark.parametrize("name", ["student", "backward128"])
def test_a_kernel_without_a_stride_is_refused_with_the_columns_it_forgets(tmp_path: Path, name: str) -> None:
    held = students(tmp_path)
    how = {"archs": (), "dtypes": ("f32",), "whole": False}
    first = check_variant(held.op("layernorm"), held.variant("layernorm", name), held, **how).first
    assert first.check == "written" and "1806 of 2062 elements not written" in first.message
    assert first.seen == "only columns from 128 on are not written"


def test_the_check_ends_with_the_first_kernel_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORELM_SIM_LIMIT", "20000")
    held = students(tmp_path, "endless")
    report = check_variant(held.op("layernorm"), held.variant("layernorm", "student"), held, archs=())
    assert len(report.failures) == 1 and report.first.raised, report.describe_failures()


def test_lines_and_loops_that_no_example_reaches_are_told_unless_they_are_declared(tmp_path: Path) -> None:
    longer = "float m = 0, q = 0;\n    if (C > 5000)\n        for (int i = c; i < C; i++) y[i] = s[c] * i;"
    held = students(tmp_path, text=STUDENT.replace("float m = 0, q = 0;", longer))
    op, student = held.op("layernorm"), held.variant("layernorm", "student")
    how = {"archs": (), "examples": (2,), "dtypes": ("f32",)}
    assert check_variant(op, held.variant("layernorm", "naive"), held, **how).gaps == []
    report = check_variant(op, student, held, **how)
    assert report.passed and len(report.gaps) == 1, report.gaps
    assert "student.cu:11: no example runs this line: for (int i = c; i < C; i++) y[i] = s[c] * i;" in report.gaps[0]
    type(student).uncovered = {report.gaps[0].partition("line: ")[2]: "no row is that long"}
    assert check_variant(op, student, held, **how).gaps == []


def test_a_few_elements_of_bf16_may_all_be_rounded_the_same_way() -> None:
    default = BOUNDS["bf16"]
    assert bounds_for(default, "bf16", 3).projection == 2.0**-8 and bounds_for(default, "bf16", 16) == default
    assert bounds_for(BOUNDS["f32"], "f32", 3) == BOUNDS["f32"]
    assert difference(np.array([1.01]), np.array([1.0])).exceeds(bounds_for(default, "bf16", 1))
