"""Every launch of tiny and GPT-2 124M, in every way of running them, keeps the limits of four generations of chips."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "every_launch.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1")


def every_launch(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=900)


@pytest.mark.parametrize("model", ["tiny", "gpt2_124m"])
def test_everything_that_a_plan_lists_is_launched_under_the_limits_of_each_chip(model):
    """f32, and bf16 where the chip has it; training, evaluation and decoding, as CUDA graphs and launch by launch."""
    done = every_launch("--models", model, "--chips", "75,80,90,120", "--batches", "1,16,64")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "21 cases and 0 variants" in done.stdout and ", 0 failed" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "/21 " in line]
    assert sum("sm_75, f32" in line for line in lines) == 3 and sum("sm_120a, bf16" in line for line in lines) == 3


def test_a_launch_that_a_chip_refuses_is_a_failure_that_names_it():
    """Where no driver lets more than 48 KiB be asked for, the tensor cores' tiles are refused."""
    done = every_launch(
        "--models", "tiny", "--chips", "90", "--batches", "1", "--precisions", "bf16", STUB_FAIL="cuFuncSetAttribute:1"
    )
    assert done.returncode == 1, done.stdout
    assert "FAILED tiny on sm_90a, bf16, B = 1: node " in done.stdout and "bytes of smem" in done.stdout
    assert "1 cases and 0 variants" in done.stdout and ", 1 failed" in done.stdout
