"""Barriers of a thread block in strict mode: who may be missing, and who must come to the same one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import core.sim
from core.kernels.nvrtc import Kernel, compile_ptx
from core.sim import KernelError
from core.sim.ptx.cuda_source import SourceText

pytestmark = pytest.mark.usefixtures("screens")

HEAD = 'extern "C" __global__ void kernel(float* y, int n) {\n    __shared__ float s[128];\n    int t = threadIdx.x;\n'

# what a kernel of 128 threads does with n = 40; nothing here is a fault (since Volta)
LEGAL = {
    "an exit in assembly": """
    if (t >= n) asm volatile("exit;");
    s[t] = t;
    __syncthreads();
    y[t] = s[n - 1 - t];""",
    "a return behind a return's own branch": """
    if (t >= n) {
        if (t == n) y[t] = 9;
        return;
    }
    s[t] = t;
    __syncthreads();
    y[t] = s[n - 1 - t];""",
    "an early return": """
    if (t >= n) return;
    s[t] = t;
    __syncthreads();
    y[t] = s[n - 1 - t];""",
    "an early return on one line": """
    if (t >= n) return; s[t] = t; __syncthreads(); y[t] = s[n - 1 - t];""",
    "an early return of several lines": """
    if (t >=
        n) {
      y[t] = 1;
      return;
    }
    s[t] = t;
    __syncthreads();
    y[t] = s[n - 1 - t];""",
    "an early return in an else": """
    if (t < n) {
      s[t] = t;
      __syncthreads();
      y[t] = s[n - 1 - t];
    } else
      return;""",
    "a warp that returns between two barriers": """
    s[t] = t;
    __syncthreads();
    if (t >= 32) return;
    s[t] += s[t + 32];
    __syncthreads();
    y[t] = s[31 - t];""",
    "a return out of a loop": """
    for (int i = 0; i < 4; i++) {
      s[t] = i;
      __syncthreads();
      if (t >= 32 * (i + 1)) {
        return;
      }
      __syncthreads();
    }
    y[t] = s[0];""",
    "two returns, then a barrier": """
    if (t >= 100) return;
    if (t >= n && y) return;
    s[t] = t;
    __syncthreads();
    y[t] = s[n - 1 - t];""",
    "a barrier in a branch that all take": """
    if (n == 40) {
      s[t] = t;
      __syncthreads();
      y[t] = s[127 - t];
    }""",
    "a barrier of 64 threads for each half": """
    s[t] = t;
    if (t < 64) {
      asm volatile("bar.sync 1, 64;" ::: "memory");
      y[t] = s[63 - t];
    } else {
      asm volatile("bar.sync 2, 64;" ::: "memory");
      y[t] = s[191 - t];
    }""",
    "warps at the two ends of a named barrier": """
    s[t] = t;
    if (t < 64)
      asm volatile("bar.arrive 1, 128;" ::: "memory");
    else {
      asm volatile("bar.sync 1, 128;" ::: "memory");
      y[t] = s[127 - t];
    }""",
}
DIVERGENT = {
    "two arms of a switch": """
    switch (t % 3) {
        case 0: y[t] = 1; __syncthreads(); break;
        case 1: y[t] = 2; __syncthreads(); break;
        default: y[t] = 3; __syncthreads();
    }
    s[t] = 1;""",
    "a goto over the barrier": """
    if (t > n) goto end;
    s[t] = t;
    __syncthreads();
    y[t] = s[n - t];
end:;""",
    "half a block at one, half at another": """
    if (t < 64) {
      s[t] = t;
      __syncthreads();
    } else {
      s[t] = 1;
      __syncthreads();
    }
    y[t] = s[127 - t];""",
    "half a warp at one, half at another": """
    s[t] = t;
    if (t % 32 < 16)
      __syncthreads();
    else
      __syncthreads();
    y[t] = s[127 - t];""",
    "every second thread": """
    if (t % 2) {
      s[t] = t;
      __syncthreads();
      y[t] = s[127 - t];
      return;
    } else {
      s[t] = 2;
      __syncthreads();
    }
    y[t] = s[127 - t];""",
    "all of it on one line": """
    s[t] = t; if (t < 20) __syncthreads(); else __syncthreads(); y[t] = s[127 - t];""",
    "one arm only": """
    s[t] = t;
    if (t < 64) __syncthreads();
    y[t] = s[t];""",
    "one arm only, within a warp": """
    s[t] = t;
    if (t < n) {
      __syncthreads();
    }
    y[t] = s[t];""",
    "an if to the end of the kernel": """
    if (t < n) {
      s[t] = t;
      __syncthreads();
      y[t] = s[n - 1 - t];
    }""",
    "an if that returns behind its barrier": """
    if (t < n) {
      s[t] = t;
      __syncthreads();
      y[t] = s[n - 1 - t];
      return;
    }
    y[t] = 3;""",
    "a return and then an if": """
    if (t >= 100)
      return;
    s[t] = t;
    if (t < n)
      __syncthreads();
    y[t] = s[t];""",
    "a loop of which threads leave": """
    for (int i = t; i < 128; i += n) {
      s[t] = i;
      __syncthreads();
    }
    y[t] = s[t];""",
    "a break before the barrier": """
    for (int i = 0; i < 4; i++) {
      if (t >= 32 * (i + 1)) break;
      __syncthreads();
    }
    y[t] = n;""",
    "a barrier in an if before one of all": """
    s[t] = t;
    if (t < 32)
      __syncthreads();
    s[t] += 1;
    __syncthreads();
    y[t] = s[127 - t];""",
    "half a warp at a named barrier": """
    s[t] = t;
    if (t < 64 && t % 2)
      asm volatile("bar.sync 1, 64;" ::: "memory");
    else if (t < 64)
      asm volatile("bar.sync 1, 64;" ::: "memory");
    y[t] = s[t];""",
    "half of two warps for one": """
    s[t] = t;
    if (t < 64 && t % 32 < 16) asm volatile("bar.sync 1, 32;" ::: "memory");
    y[t] = s[t];""",
}


def run(body: str) -> None:
    core.sim.run(HEAD + body + "\n}", "kernel", 1, 128, [np.zeros(128, np.float32), np.int32(40)])


@pytest.mark.parametrize("name", LEGAL)
def test_barriers_that_all_threads_come_to_which_are_left_raise_no_alarm(name):
    run(LEGAL[name])


@pytest.mark.parametrize("name", DIVERGENT)
def test_a_barrier_that_part_of_a_block_or_warp_comes_to_is_reported(name):
    with pytest.raises(KernelError) as caught:
        run(DIVERGENT[name])
    assert caught.value.kind == "divergent", str(caught.value)


def test_a_barrier_counts_whole_warps():
    with pytest.raises(KernelError) as caught:
        run('if (t < 48) asm volatile("bar.sync 1, 48;" ::: "memory");\ny[t] = 1;')
    assert caught.value.kind == "barrier count"


def test_a_returning_function_is_no_early_return_of_the_kernel():
    source = """
__device__ void part(float* s, int t, int n) {
    if (t >= n) return;
    s[t] = t;
    __syncthreads();
}
extern "C" __global__ void kernel(float* y, int n) {
    __shared__ float s[128];
    part(s, threadIdx.x, n);
    y[threadIdx.x] = threadIdx.x;
}"""
    with pytest.raises(KernelError) as caught:
        core.sim.run(source, "kernel", 1, 128, [np.zeros(128, np.float32), np.int32(40)])
    assert caught.value.kind == "divergent"


def test_without_its_source_a_barrier_after_an_exit_is_accepted_and_noted():
    ptx = compile_ptx(Kernel(Path("kernel.cu"), "kernel", text=f"{HEAD}{LEGAL['an early return']}\n}}")).ptx
    report = core.sim.run(ptx, "kernel", 1, 128, [np.zeros(128, np.float32), np.int32(40)])
    assert [f.kind for f in report.findings] == ["divergent"] and "kernel.cu:" in report.findings[0].message
    half = compile_ptx(Kernel(Path("kernel.cu"), "kernel", text=f"{HEAD}{DIVERGENT['one arm only']}\n}}")).ptx
    with pytest.raises(KernelError) as caught:
        core.sim.run(half, "kernel", 1, 128, [np.zeros(128, np.float32), np.int32(40)])
    assert caught.value.kind == "divergent"


def test_statements_are_found_in_spite_of_comments_strings_and_brackets():
    text = SourceText(
        'if (a[f(1)]) { return; } // if (x)\n"if (y)"; /* if (z) */ else_();\nwhile (b) if (c) d(); else { e(); }\n'
    )
    found = [(s.branching, text.plain[s.header.start : s.header.stop]) for s in text.statements]
    assert found == [(True, "if (a[f(1)])"), (False, "while (b)"), (True, "if (c)")]
    last = text.statements[-1]
    assert text.plain[last.body.start : last.body.stop].strip() == "d();"
    assert last.otherwise is not None and text.plain[last.otherwise.start : last.otherwise.stop].strip() == "{ e(); }"
    assert text.statements[1].stop == last.stop


REDUCED = """
__device__ unsigned int count;
extern "C" __global__ void kernel(int* y, int n) {
    int t = threadIdx.x;
    if (t >= n) return;
    int before = 0;
    if (t % 32 == 3) before = atomicAdd(&count, 1);  // warps run apart
    int any = __syncthreads_or(before == 1), all = __syncthreads_and(t < 32 || before < 99);
    int many = __syncthreads_count(t % 32 == 3 && before < 3), none = __syncthreads_or(t < 0);
    y[t] = any + 10 * all + 100 * many + 1000 * none;
}"""


@pytest.mark.parametrize("strict, executor", [(True, None), (False, "interpreter"), (False, None)])
@pytest.mark.parametrize("threads, n", [(64, 64), (256, 256), (256, 200)])
def test_a_reduction_over_a_block_is_right_where_its_warps_arrive_one_by_one(threads, n, strict, executor):
    y = np.zeros(threads, np.int32)
    core.sim.run(REDUCED, "kernel", 1, threads, [y, np.int32(n)], strict=strict, executor=executor)
    assert y[:n].tolist() == [1 + 10 + 100 * min(3, -(-n // 32))] * n and not y[n:].any()
