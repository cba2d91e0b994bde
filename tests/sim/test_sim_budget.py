"""A kernel that does not end is stopped after a number of branches a thread block, wherever the simulator runs it."""

from __future__ import annotations

import re

import numpy as np
import pytest

import core.sim
from core import cli
from core.device.launch import LaunchRecord
from core.device.simulated import SimDevice
from core.errors import UsageError
from core.kernels.nvrtc import Kernel
from core.sim.machine.budget import LIMIT, VARIABLE

BOTH = pytest.mark.parametrize("strict", [False, True], ids=["fast", "strict"])
ENDLESS = {  # text of the line that loops -> the threads that do
    "for (int i = t; i < n;) s += y[i];": range(64),
    "while (n > 0) { if (y[n] > 5) break; __syncthreads(); }": range(64),
    "if (t == 5) while (n > 0) { s += y[n]; if (s > 9) break; }": [5],
    "for (int i = t; i < n; i += n - 100) { if (i % 2) s += y[i]; else s -= __sinf(s); __syncwarp(); }": range(64),
    "if (t == 40) while (atomicAdd((int*)y + n, 0) == 0) {}": [40],
}


def kernel(body: str) -> str:
    return f"""extern "C" __global__ void k(float* y, int n) {{
    int t = threadIdx.x; float s = 0;
    {body}
    if (blockIdx.x == 0) y[t] = s;
}}"""


def run(body: str, grid: int = 1, **told) -> None:
    core.sim.run(kernel(body), "k", grid, 64, [np.zeros(128, np.float32), np.int32(100)], **told)


@BOTH
@pytest.mark.parametrize("grid", [1, 3])
@pytest.mark.parametrize("body", ENDLESS)
def test_an_endless_kernel_is_stopped_with_its_line_and_thread(body, grid, strict):
    with pytest.raises(core.sim.KernelError) as caught:
        run(body, grid, strict=strict, limit=2000)
    error = caught.value
    assert error.kind == "endless" and "still looping: a thread block has taken 2,000 branches" in str(error)
    assert (
        any(f"kernel.cu:3 `{body.rstrip(';')}`: thread {t} of block " in str(error) for t in ENDLESS[body])
        and VARIABLE in error.hint
        and "limit=" in error.hint
    )


@BOTH
def test_the_default_limit_stops_it_too(strict):
    with pytest.raises(core.sim.KernelError, match=f"taken {LIMIT:,} branches"):
        run("for (int i = t; i < n;) s += y[i];", strict=strict)


def test_loops_of_real_sizes_end_within_the_limit():
    """A vocabulary of Gemma's size by one thread; the tiles of 65,536 rows with two barriers each, as in a matmul."""
    run("#pragma unroll 1\n    for (int i = 0; i < n * 2560; i++) s += i;", strict=False)
    run("for (int i = 0; i < n * 655 / 16; i++) { __syncthreads(); s += i; __syncthreads(); }", strict=False)


def test_a_long_loop_over_volatile_memory_is_no_deadlock():
    run("for (int i = 0; i < n * 90; i++) s += ((volatile float*)y)[64 + i % 64];")


@BOTH
def test_thread_blocks_that_loop_at_different_times_are_counted_apart(strict):
    """Eight thread blocks, each with a loop of its own: together they are over the limit."""
    loops = "".join(
        f"if (blockIdx.x == {b}) for (int i = 0; i < n * 7; i++) s += ((volatile float*)y)[64 + (i + {b}) % 64];\n"
        for b in range(8)
    )
    run(loops, 8, strict=strict, limit=1000)


def test_the_environment_sets_another_limit(monkeypatch):
    monkeypatch.setenv(VARIABLE, "777")
    with pytest.raises(core.sim.KernelError, match="taken 777 branches"):
        run("while (n > 0) { s += y[n]; if (s > 9) break; }")
    assert SimDevice().limit == 777
    with pytest.raises(core.sim.KernelError, match="taken 99 branches"):
        run("while (n > 0) { s += y[n]; if (s > 9) break; }", limit=99)
    for bad in ("0", "many", "-1"):
        monkeypatch.setenv(VARIABLE, bad)
        with pytest.raises(UsageError, match=f"{VARIABLE} is .{bad}.; expected a number from 1"):
            run("s = 1;")


def test_runs_on_the_simulator_have_the_limit(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "5000")
    file = tmp_path / "k.cu"
    file.write_text(kernel("while (n > 0) { s += y[n]; if (s > 9) break; }"), "utf-8")
    device = SimDevice()
    memory = device.tensor(device.allocate(512), 0, (128,), "f32")
    asked = LaunchRecord(Kernel(file, "k"), (memory, np.int32(1)), (1, 1, 1), (64, 1, 1))
    with pytest.raises(core.sim.KernelError, match="taken 5,000 branches"):
        device.run([asked])


PLUGIN = '''
from core import Variant, i32

class Endless(Variant):
    """It never ends."""

    op, name, base, priority = "layernorm", "endless", "naive", -1
    source = "endless.cu"

    def forward(self, t, launch):
        launch("k", t.y, i32(t.C), grid=1, block=64)

def core_variants():
    return [Endless]
'''


@pytest.mark.parametrize("words", [["check", "--no-time"], ["trace"]], ids=lambda w: w[0])
def test_check_and_trace_have_the_limit_as_an_option(words, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "endless"
    folder.mkdir()
    (folder / "__init__.py").write_text(PLUGIN, "utf-8")
    text = 'extern "C" __global__ void k(elem* y, int n) { while (n > 0) { if (y[n] == 9) break; __syncthreads(); } }'
    (folder / "endless.cu").write_text(text, "utf-8")
    monkeypatch.setenv("CORELM_PLUGINS", "")
    monkeypatch.delenv(VARIABLE, raising=False)
    more = [] if words[0] == "check" else ["--direction", "forward"]
    assert cli.run([*words, "layernorm.endless", "--plugin", str(folder), "--branches", "1234", *more]) != 0
    told = capsys.readouterr()
    assert re.search(
        r"endless.cu:1 `.*`: thread 0 of block 0: still looping: a thread block has taken 1,234 branches",
        told.out + told.err,
    )
    assert SimDevice().limit == LIMIT
