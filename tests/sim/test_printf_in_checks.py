"""printf of a kernel in the op check: a launch that runs again in strict mode prints once."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.loader import load_registry
from core.testing import check_variant, devices

PLUGIN = """
from core import Op, Reference, Variant, u64
double = Op("double", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (1, 3)}])
class DoubleReference(Reference):
    op = "double"
    def forward(self, t):
        t.y[...] = t.x * 2
class DoubleKernel(Variant):
    op, name, source, dtypes = "double", "kernel", "double.cu", ("f32",)
    def forward(self, t, launch):
        launch("twice", t.y, t.x, u64(t.rows * t.C), grid=1, block=32)
def core_ops():
    return [double]
def core_variants():
    return [DoubleReference, DoubleKernel]
"""
KERNEL = """extern "C" __global__ void twice(float* y, const float* x, u64 n) {
    u64 i = global_thread();
    if (i == 0) printf("here\\n");
    if (i < n) y[i] = x[i] * 2;
}
"""


def test_a_launch_prints_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "doubles.py").write_text(PLUGIN)
    (tmp_path / "double.cu").write_text(KERNEL)
    runs: list[bool] = []
    run = devices.SimRunner._run
    monkeypatch.setattr(
        devices.SimRunner,
        "_run",
        lambda self, record, strict=False: (runs.append(strict), run(self, record, strict))[1],
    )
    registry = load_registry([tmp_path / "doubles.py"])
    report = check_variant(
        registry.op("double"), registry.variant("double", "kernel"), registry, "sim", examples=[0], archs=()
    )
    assert report.passed, report.describe_failures()
    assert True in runs and capsys.readouterr().out.count("here") == runs.count(False)
