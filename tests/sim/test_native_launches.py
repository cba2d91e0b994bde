"""Launches on the machine: thread blocks on threads or in turns, signals, and memory that a kernel may not touch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from core.errors import UsageError
from core.sim import KernelError, PtxError, run
from core.sim.native.toolchain import compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """extern "C" __global__ void k(float* y, int* n) {
      __shared__ float s[64];
      s[threadIdx.x] = threadIdx.x * 0.1f + blockIdx.x;
      __syncthreads();
      atomicAdd(&y[64 * 300 + threadIdx.x % 4], s[63 - threadIdx.x] * 1.7f);
      y[blockIdx.x * 64 + threadIdx.x] = s[63 - threadIdx.x] + atomicAdd(n, 1);
    }"""
    found = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("CORELM_THREADS", threads)
        y = np.zeros(64 * 300 + 4, np.float32)
        run(source, "k", 300, 64, [y, np.zeros(1, np.int32)], strict=False, executor="native")
        found.append(y.tobytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("blocks", "turns"), [(1, 3), (6, 3), (3, 3000), (40, 200)])
def test_short_and_long_launches_give_the_same_on_any_number_of_threads(
    blocks: int, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short ones end on the calling thread, long ones are shared; the order of warps shows in the sums of a block."""
    source = """extern "C" __global__ void k(float* y, int turns) {
      __shared__ float s[4];
      if (threadIdx.x < 4) s[threadIdx.x] = blockIdx.x;
      __syncthreads();
      float v = threadIdx.x * 0.37f;
      #pragma unroll 1
      for (int i = 0; i < turns + threadIdx.x / 32 * 7; i++) {
        v = v * 0.99f + 1;
        if (i % 16 == 0) atomicAdd(&s[threadIdx.x % 4], v);
      }
      __syncthreads();
      y[blockIdx.x * blockDim.x + threadIdx.x] = v + s[threadIdx.x % 4];
    }"""
    found = []
    for threads in ("1", "2", "5", "2"):
        monkeypatch.setenv("CORELM_THREADS", threads)
        y = np.zeros(blocks * 96, np.float32)
        run(source, "k", blocks, 96, [y, np.int32(turns)], strict=False, executor="native")
        found.append(y.tobytes())
    assert len(set(found)) == 1 and np.all(y > 0)


def test_of_several_faults_the_lowest_thread_block_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'extern "C" __global__ void k(float* y) { if (blockIdx.x >= 7) y[1000 + blockIdx.x] = 1; }'
    for threads in ("1", "4"):
        monkeypatch.setenv("CORELM_THREADS", threads)
        with pytest.raises(KernelError, match="block 7 writes"):
            run(source, "k", 64, 32, [np.zeros(4, np.float32)], strict=False, executor="native")


GRID_BARRIER = """extern "C" __global__ void k(volatile int* arrived, float* y) {
  y[blockIdx.x * 32 + threadIdx.x] = blockIdx.x + threadIdx.x;
  __threadfence();
  if (threadIdx.x == 0) { atomicAdd((int*)arrived, 1); while (*arrived < gridDim.x - MISSING) ; }
  __syncthreads();
  y[(gridDim.x + blockIdx.x) * 32 + threadIdx.x] = y[(blockIdx.x + 1) % gridDim.x * 32 + threadIdx.x];
}"""


def test_thread_blocks_that_wait_for_each_other_take_turns() -> None:
    y = np.zeros(12 * 64, np.float32)
    source = GRID_BARRIER.replace("MISSING", "0")
    run(source, "k", 12, 32, [np.zeros(1, np.int32), y], strict=False, executor="native")
    blocks = (np.arange(12) + 1) % 12
    assert np.array_equal(y[12 * 32 :].reshape(12, 32), blocks[:, None] + np.arange(32)[None])


def test_a_wait_that_nobody_ends_is_a_deadlock() -> None:
    source = GRID_BARRIER.replace("- MISSING", "+ 1")
    with pytest.raises(KernelError) as error:
        run(source, "k", 4, 32, [np.zeros(1, np.int32), np.zeros(256, np.float32)], strict=False, executor="native")
    assert error.value.kind in ("deadlock", "endless")


ENDLESS = """
import numpy as np
from core.sim import run
source = 'extern "C" __global__ void k(int* y, int last) { for (int i = 1; i != last; i = (i & 1023) + 1) y[0] += i; }'
for last in (5, 0):  # all is compiled by the launch that ends
    run(source, "k", 1, 32, [np.zeros(1, np.int32), np.int32(last)], strict=False, executor="native", limit=10**15)
    print("begun", flush=True)
"""


def test_ctrl_c_ends_a_kernel_that_does_not_end() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in said


def test_division_and_wild_addresses_do_not_end_the_process() -> None:
    source = """extern "C" __global__ void k(int* y, long long* z, int zero) {
      y[threadIdx.x] = (threadIdx.x - 5) / zero + (threadIdx.x - 5) % zero + (-2147483647 - 1) / (zero - 1);
      z[threadIdx.x] = (z[threadIdx.x] - 3) / zero + (1ll << 63) / (zero - 1) + (1ll << 63) % (zero - 1);
    }"""
    run(source, "k", 1, 32, [np.zeros(32, np.int32), np.zeros(32, np.int64), np.int32(0)], strict=False)
    wild = 'extern "C" __global__ void k(int* y, long long at) { *(volatile int*)at = y[0]; }'
    for at in (0, 4, -4, 1 << 40, (1 << 40) + 8, 1 << 41, (1 << 41) + 8, 1 << 62, -(1 << 60), (1 << 40) + (3 << 24)):
        with pytest.raises(KernelError):
            run(wild, "k", 1, 32, [np.zeros(32, np.int32), np.int64(at)], strict=False, executor="native")


FALLS_BACK = """
import sys
import numpy as np
from core.sim import run
source = 'extern "C" __global__ void k(float* y) { y[threadIdx.x] = threadIdx.x; }'
for _ in range(2):
    y = np.zeros(32, np.float32)
    run(source, "k", 1, 32, [y], strict=False)
    assert y[31] == 31
"""


def test_a_compiler_that_fails_leaves_kernels_to_the_interpreter_and_says_so_once(tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text(f"""#!/bin/sh
case "$*" in *probe.c*) exec {compiler()[0]} "$@";; esac
echo 'broken: no such thing' >&2
exit 1
""")  # compiles a line of C, and no file of the machine
    broken.chmod(0o755)
    environment = {**os.environ, "CC": str(broken)}
    done = subprocess.run([sys.executable, "-c", FALLS_BACK], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("kernels run on the interpreter") == 1 and "no such thing" in done.stderr
    environment["CORELM_SIM_EXECUTOR"] = "native"
    done = subprocess.run([sys.executable, "-c", FALLS_BACK], capture_output=True, text=True, env=environment)
    assert done.returncode and "CORELM_SIM_EXECUTOR=native cannot run kernels: the C compiler" in done.stderr


LACKS = """
.version 8.7
.target sm_90a
.address_size 64
.visible .entry k() { .reg .b32 %r<3>; mov.u32 %r1, 0; mov.u32 %r2, %clock; unheard.of.b32 %r0, %r1; ret; }
"""


def test_native_by_name_is_an_error_in_words_where_the_machine_lacks_an_instruction(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="executor=.native. cannot run kernel k: the machine does not have `unheard"):
        run(LACKS, "k", 1, 1, [], strict=False, executor="native")
    with pytest.raises(PtxError):
        run(LACKS, "k", 1, 1, [], strict=False)
    assert "kernel k runs on the interpreter: the machine does not have `unheard" in capsys.readouterr().err
    monkeypatch.setenv("CORELM_SIM_EXECUTOR", "native")
    with pytest.raises(UsageError, match="CORELM_SIM_EXECUTOR=native cannot run kernel k"):
        run(LACKS, "k", 1, 1, [], strict=False)
    with pytest.raises(UsageError, match="CORELM_SIM_EXECUTOR=native does not go with count"):
        run(LACKS, "k", 1, 1, [], strict=False, count=True)


def test_without_a_compiler_the_interpreter_runs_kernels() -> None:
    environment = {**os.environ, "PATH": "/nowhere", "CC": ""}
    code = FALLS_BACK + "from core.sim.native.choice import described; print(described())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "on NumPy; no C compiler works here" in done.stdout
