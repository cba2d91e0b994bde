"""Translated kernels in the cache: made once, made again where damaged, and the same results from both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.kernels.nvrtc import Kernel, compile_ptx
from core.sim import KernelError
from core.sim.launching import simulator as front
from core.sim.launching.simulator import Simulator
from core.sim.native import stored
from core.sim.native.executor import Linked
from core.sim.native.toolchain import compiler, machine

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")

SOURCE = """__device__ float table[4] = {1, 2, 3, 4}; __constant__ int step = 3;
extern "C" __global__ void k(float* y, int n) {
  __shared__ float s[64];
  extern __shared__ float more[];
  s[threadIdx.x] = threadIdx.x * table[threadIdx.x % 4];
  more[threadIdx.x] = blockIdx.x;
  __syncthreads();
  int i = blockIdx.x * 64 + threadIdx.x;
  if (i < n) y[i] = s[63 - threadIdx.x] + more[(threadIdx.x + step) % 64];
  table[threadIdx.x % 4] = 0;
}"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    machine()  # loaded already: only translations come into the new folder
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path))
    return tmp_path / "machine"


def launched(ptx: str, n: int = 100) -> tuple[Simulator, bytes]:
    one = Simulator(ptx)
    at = one.memory.allocate(400)
    one.launch("k", [2], [64], [at.to_bytes(8, "little"), np.int32(n).tobytes()], smem=256, executor="native")
    return one, one.memory.read(at, 400).tobytes()


def never(*given: object, **named: object) -> object:
    raise AssertionError("parsed or translated again")


@pytest.fixture
def ptx() -> str:
    return compile_ptx(Kernel(Path("kernel.cu"), "k", text=SOURCE)).ptx


def test_a_warm_launch_neither_parses_nor_translates(cache: Path, ptx: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, cold = launched(ptx)
    assert len(list(cache.glob("*.code"))) == 2
    for name in ("parse", "translate", "link", "bind"):
        monkeypatch.setattr(front, name, never)
    two, warm = launched(ptx)
    assert warm == cold and any(cold) and two.kernels == one.kernels == ["k"] and two.globals_at == one.globals_at
    first, second = one.native("k"), two.native("k")
    assert isinstance(first, Linked) and isinstance(second, Linked)
    assert first.facts == second.facts and vars(first.code).keys() == vars(second.code).keys()
    for name, value in vars(first.code).items():
        assert np.array_equal(value, vars(second.code)[name]) if isinstance(value, np.ndarray) else True
        assert isinstance(value, np.ndarray) or value == vars(second.code)[name]


def test_a_fault_after_a_warm_start_has_the_same_words(cache: Path, ptx: str) -> None:
    said = []
    for _ in range(2):
        with pytest.raises(KernelError) as caught:
            launched(ptx, 128)
        said.append((str(caught.value), caught.value.details))
    assert said[0] == said[1] and "kernel.cu:9: thread 36" in said[0][0]


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b[:50] + b"?" + b[51:]])
def test_a_damaged_translation_is_made_again(damage: object, cache: Path, ptx: str) -> None:
    _, cold = launched(ptx)
    whole = {path: path.read_bytes() for path in cache.glob("*.code")}
    for path, data in whole.items():
        path.write_bytes(damage(data))  # type: ignore[operator]
    _, again = launched(ptx)
    assert again == cold
    assert {path: path.read_bytes() for path in cache.glob("*.code")} == whole


def test_a_change_of_the_simulators_files_makes_new_translations(
    cache: Path, ptx: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(ptx)
    monkeypatch.setattr(stored, "_simulator", lambda: "other files")
    launched(ptx)
    assert len(list(cache.glob("*.code"))) == 4


def test_two_processes_translate_one_kernel_at_once(tmp_path: Path) -> None:
    code = f"""
import numpy as np
from core.sim import run
y = np.zeros(100, np.float32)
run({SOURCE!r}, "k", 2, 64, [y, np.int32(100)], 256, strict=False, executor="native")
print(y.tobytes().hex())
"""
    # The machine and the PTX are where they were; only translations are new for these processes.
    new = "from pathlib import Path\nfrom core.sim.native import stored\n"
    new += f"stored.cache_folder = lambda: Path({str(tmp_path)!r})\n"
    begun = [
        subprocess.Popen([sys.executable, "-c", new + code], stdout=subprocess.PIPE, env=dict(os.environ))
        for _ in range(2)
    ]
    said = [one.communicate()[0] for one in begun]
    assert [one.returncode for one in begun] == [0, 0]
    assert said[0] == said[1] and len(said[0]) > 400
    assert len(list((tmp_path / "machine").glob("*.code"))) == 2 and not list(tmp_path.rglob(".*"))
