"""Every launch of tiny and GPT-2 124M, in every way of running them, keeps the limits of three generations of chips."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.kernels.chips import CHIPS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "every_launch.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1")


def every_launch(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=900)


@pytest.mark.parametrize(("precision", "chips"), [("f32", (75, 120)), ("bf16", (90, 120))])
def test_everything_that_a_plan_lists_is_launched_under_the_limits_of_each_chip(precision, chips):
    """Training, evaluation and decoding, as CUDA graphs and launch by launch. On the chips with the least shared
    memory, of those without the kernels of Ampere and of those with them; in bf16 on Hopper too. What the compiler
    takes for sm_80 is held against its limits in test_cuda_compiles.py."""
    words = ("--precisions", precision, "--chips", ",".join(map(str, chips)), "--batches", "1,64")
    done = every_launch("--models", "tiny,gpt2_124m", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = 2 * len(chips) * 2
    assert f"{cases} cases and 0 variants" in done.stdout and ", 0 failed" in done.stdout
    lines = [line for line in done.stdout.splitlines() if f"/{cases} " in line]
    assert all(sum(f"on {CHIPS[chip].arch}, {precision}" in line for line in lines) == 4 for chip in chips)


def test_a_launch_that_a_chip_refuses_is_a_failure_that_names_it():
    done = every_launch(
        "--models", "tiny", "--chips", "90", "--batches", "1", "--precisions", "bf16", STUB_FAIL="cuLaunchKernelEx:1"
    )
    assert done.returncode == 1, done.stdout
    assert "FAILED tiny on sm_90a, bf16, B = 1: the driver refuses to launch node " in done.stdout
    assert "1 cases and 0 variants" in done.stdout and ", 1 failed" in done.stdout
