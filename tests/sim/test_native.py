"""Kernels on the machine in C: the interpreter's bits, and its errors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.config.resolved import resolve_config
from core.errors import UsageError
from core.graph import load_model
from core.kernels.nvrtc import Kernel, compile_ptx
from core.sim import KernelError, run
from core.sim.launching.simulator import Simulator
from core.sim.native import toolchain
from core.sim.native.toolchain import compiler, machine
from core.train.wiring import build_engine

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")
Array = np.ndarray[Any, Any]


def both(source: str, kernel: str, grid: Any, block: Any, args: Sequence[Any], smem: int = 0) -> list[Array]:
    """Run a kernel on both executors with copies of the arguments; its arrays after both, which must be the same."""
    after = []
    for executor in ("interpreter", "native"):
        own = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        run(source, kernel, grid, block, own, smem, strict=False, executor=executor)
        after.append([a for a in own if isinstance(a, np.ndarray)])
    for one, other in zip(*after, strict=True):
        assert one.tobytes() == other.tobytes()
    return after[1]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_an_elementwise_kernel_with_a_ragged_end() -> None:
    source = """extern "C" __global__ void k(const float* x, float* y, int n) {
      int i = blockIdx.x * blockDim.x + threadIdx.x;
      if (i >= n) return;
      float v = x[i];
      y[i] = v * v * 0.044715f + v / (1.0f + v * v);
    }"""
    x = normal(1000)
    (_, y) = both(source, "k", 8, 128, [x, np.zeros_like(x), np.int32(1000)])
    assert np.allclose(y, x * x * 0.044715 + x / (1 + x * x), rtol=1e-6)


def test_each_row_of_the_machine_is_there_once() -> None:
    spelled = Counter((name, operands) for name, rows in machine().rows.items() for _, operands in rows)
    assert [row for row, times in spelled.items() if times > 1] == []


TILED = """extern "C" __global__ void tiled(const float* a, const float* b, float* c, int n) {
  __shared__ float ta[16][16], tb[16][16];
  int row = blockIdx.y * 16 + threadIdx.y, col = blockIdx.x * 16 + threadIdx.x;
  float s = 0;
  for (int k = 0; k < n; k += 16) {
    ta[threadIdx.y][threadIdx.x] = a[row * n + k + threadIdx.x];
    tb[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + col];
    __syncthreads();
    for (int j = 0; j < 16; j++) s += ta[threadIdx.y][j] * tb[j][threadIdx.x];
    __syncthreads();
  }
  c[row * n + col] = s;
}"""


def test_a_tiled_product_with_barriers() -> None:
    a, b = normal(64, 64), normal(64, 64, seed=1)
    c = both(TILED, "tiled", (4, 4), (16, 16), [a, b, np.zeros_like(a), np.int32(64)])[2]
    assert np.allclose(c, a @ b, atol=1e-4)


def test_a_sum_over_a_warp_by_shuffles() -> None:
    source = """extern "C" __global__ void k(const float* x, float* y, int n) {
      float s = 0;
      for (int i = threadIdx.x; i < n; i += 32) s += x[blockIdx.x * n + i];
      for (int o = 16; o; o >>= 1) s += __shfl_down_sync(~0u, s, o);
      if (threadIdx.x == 0) y[blockIdx.x] = s;
    }"""
    x = normal(9, 77)
    (_, y) = both(source, "k", 9, 32, [x, np.zeros(9, np.float32), np.int32(77)])
    assert np.allclose(y, x.sum(1), atol=1e-4)


@pytest.mark.parametrize("threads", [1, 31, 33, 100])
def test_lanes_that_part_and_meet_again(threads: int) -> None:
    source = """extern "C" __global__ void k(int* y) {
      int t = threadIdx.x, v = 0;
      for (int i = 0; i < t % 7; i++) {
        if ((t + i) & 1) v += i * 3; else if (t % 3 == 0) v -= i; else { v ^= t; if (v > 40) break; }
      }
      switch (t % 5) { case 0: v += 1; break; case 1: v *= 2; case 2: v -= 3; break; default: if (t & 8) return; }
      y[t] = v + t / (t % 4 + 1) % 3;
    }"""
    both(source, "k", 1, threads, [np.zeros(threads, np.int32)])


FAULTS = {
    "out of bounds": "y[threadIdx.x + 60] = 1;",
    "misaligned": "*(float*)((char*)y + threadIdx.x) = 1;",
    "endless": "for (int i = 0; i >= 0; i = (i + 1) & 1023) if (i == 7) y[i] += 1;",
    "trap": "if (threadIdx.x == 33) __trap();",
    "member absent": "if (threadIdx.x < 40) y[0] = __shfl_sync(~0u, y[threadIdx.x], 3); __syncthreads(); y[1] = 2;",
    "not named": "y[threadIdx.x] = __shfl_sync(0xFFFF, y[threadIdx.x], 3);",
    "barrier never completes": (
        'if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;"); else asm volatile("bar.sync 2, 64;"); y[0] = 1;'
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_has_the_interpreters_words(kind: str) -> None:
    source = 'extern "C" __global__ void k(float* y) {\n  ' + FAULTS[kind] + "\n}\n"
    said = []
    for executor in ("interpreter", "native"):
        with pytest.raises(KernelError) as caught:
            run(source, "k", 2, 64, [np.zeros(64, np.float32)], strict=False, executor=executor, limit=2000)
        error = caught.value
        said.append((error.kind, error.message, error.hint, error.details, error.accesses))
    assert said[0] == said[1] and said[0][0] == kind


def test_an_executor_that_cannot_be_is_refused_in_words() -> None:
    args = [np.zeros(4, np.float32)]
    source = 'extern "C" __global__ void k(float* y) { y[threadIdx.x] = 1; }'
    with pytest.raises(UsageError, match='executor="native" does not go with strict'):
        run(source, "k", 1, 4, args, executor="native")
    with pytest.raises(UsageError, match='executor="native" does not go with count'):
        run(source, "k", 1, 4, args, strict=False, count=True, executor="native")
    with pytest.raises(UsageError, match='executor="fast"; expected one of native, interpreter'):
        run(source, "k", 1, 4, args, strict=False, executor="fast")


def test_a_compiler_that_compiles_nothing_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = toolchain.compiler.__wrapped__
    monkeypatch.setattr(toolchain, "compiler", choose)
    for broken in ("false", "true", "/absent/cc", "gcc 'half a quote"):
        monkeypatch.setenv("CC", broken)
        assert choose()[0] in toolchain.NAMES
        assert broken.split()[0] in toolchain.passed_over()
    monkeypatch.setattr(toolchain, "NAMES", ("false",))
    assert choose() is None


def test_one_of_several_processes_compiles_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path))
    command, builds = compiler(), []

    def build(command: object, sources: object, room: Path) -> Path:
        builds.append(room)
        time.sleep(0.1)
        (room / "machine.so").write_bytes(b"compiled")
        return room / "machine.so"

    monkeypatch.setattr(toolchain, "_build", build)
    monkeypatch.setattr(toolchain, "Machine", lambda path, key: path)
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(toolchain._load, [command] * 3))
    assert len(builds) == 1 and len({path.name for path in loaded}) == 1


def test_a_config_chooses_the_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    config, registry = resolve_config("tiny", overrides=["executor=interpreter"], device="sim")
    engine = build_engine(config, registry, load_model(config.model, registry), None)
    assert engine.device.executor == "interpreter" and engine.device.describe().endswith("on NumPy")


APPROXIMATE = ("ex2", "lg2", "sin", "cos", "tanh", "rcp", "sqrt", "rsqrt")


@pytest.mark.parametrize("name", APPROXIMATE)
def test_an_approximate_function_has_the_interpreters_bits(name: str) -> None:
    source = f"""extern "C" __global__ void k(const float* x, float* y) {{
      int i = blockIdx.x * 256 + threadIdx.x;
      asm("{name}.approx.f32 %0, %1;" : "=f"(y[i]) : "f"(x[i]));
    }}"""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2**32, 4096, dtype=np.uint32).view(np.float32).copy()
    x[:2048] = normal(2048) * rng.choice([0.01, 0.1, 1, 10, 1e3, 1e6, 1e9], 2048).astype(np.float32)
    x[:8] = [0, -0.0, np.inf, -np.inf, np.nan, 1, 1e-45, -1e-45]
    both(source, "k", 16, 256, [x, np.zeros_like(x)])


def test_fields_of_bits() -> None:
    source = """extern "C" __global__ void k(const unsigned* x, unsigned* y, unsigned long long* z) {
      int i = threadIdx.x;
      asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(y[i]) : "r"(x[i]), "r"(x[i + 256]), "r"(x[i] % 40), "r"(x[i + 1] % 40));
      unsigned long long a = x[i] * 0x9E3779B97F4A7C15ull, b = x[i + 3] * 0x9E3779B97F4A7C15ull;
      asm("bfi.b64 %0, %1, %2, %3, %4;" : "=l"(z[i]) : "l"(a), "l"(b), "r"(x[i] % 70), "r"(x[i + 1] % 70));
      y[i] ^= __brev(x[i + 2]); z[i] ^= __brevll(a);
    }"""
    x = np.random.default_rng(0).integers(0, 2**32, 512, dtype=np.uint32)
    both(source, "k", 1, 256, [x, np.zeros(256, np.uint32), np.zeros(256, np.uint64)])


def test_atomics_take_their_turns_by_blocks_warps_and_lanes() -> None:
    source = """extern "C" __global__ void k(unsigned* y, int* z, unsigned long long* q, float* f) {
      __shared__ unsigned s[8]; __shared__ float g[4];
      int t = threadIdx.x, i = 16 + t + 96 * blockIdx.x;
      if (t < 8) s[t] = 0;
      if (t < 4) g[t] = 0;
      __syncthreads();
      for (int n = 0; n < 1 + (t & 32) / 16; n++) {
        unsigned a = atomicAdd(&s[t % 8], t), b = atomicInc(&y[4], 20), c = atomicDec(&y[5], 9);
        atomicMax(&z[t % 5], t * 7 - 300); atomicMin(&z[5 + t % 5], 100 - t * 3);
        atomicExch(&y[6 + t % 2], t); atomicXor(&y[8], t * 77); atomicAnd(&y[9], ~t); atomicOr(&y[10], t);
        atomicAdd(&q[t % 3], 0x100000001ull * t); atomicAdd(&f[t % 4], t * 0.1f); atomicAdd(&g[t % 4], 0.1f * t);
        __syncthreads();
        y[i] = a + b * 3 + c * 5 + s[t % 8];
        f[i] = g[t % 4];
        t++;
      }
    }"""
    args = [np.zeros(320, np.uint32), np.zeros(16, np.int32), np.zeros(8, np.uint64), np.zeros(320, np.float32)]
    both(source.replace("__syncthreads();\n        y", "__syncwarp();\n        y"), "k", 3, 96, args)


def test_atomics_of_narrow_numbers_and_of_pairs() -> None:
    body, outputs = "", []
    for place, kind in enumerate(("f16", "bf16")):
        for operation in ("add", "min", "max"):
            for pair in ("", "x2"):
                name = f"{operation}.noftz.{kind}{pair}"
                word = "%0, [%1], %2;" if pair else "h, [%1], v; cvt.u32.u16 %0, h;"
                outputs.append(f"""
                    asm("{{.reg.b16 h, v; cvt.u16.u32 v, %2; atom.global.{name} {word}}}"
                        : "=r"(r) : "l"(y + {4 * (len(outputs) + 1)} + t % 2), "r"(x[t + {32 * place}]));
                    sum += r * {2 * len(outputs) + 1};""")
    body = "\n".join(outputs)
    source = f"""extern "C" __global__ void k(unsigned* y, const unsigned* x, unsigned short* c, unsigned* z) {{
      unsigned t = threadIdx.x, r, sum = 0; {body}
      for (unsigned short old = c[t % 3], was; (was = atomicCAS(c + t % 3, old, old + x[t])) != old;) old = was;
      z[t] = sum;
    }}"""
    x = np.random.default_rng(1).integers(0, 2**32, 64, dtype=np.uint32)
    x[:4] = 0x7C007E01, 0xFC000000, 0x80000000, 0x00018001  # infinities, not a number, zeros, the smallest
    both(source, "k", 1, 32, [np.zeros(64, np.uint32), x, np.zeros(4, np.uint16), np.zeros(32, np.uint32)])


def test_clocks_grow_on_the_machine_too() -> None:
    source = """extern "C" __global__ void k(int* y) {
      long long start = clock64(), t; unsigned c = clock(); unsigned long long g;
      asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(g));
      while (clock64() - start < 9) ;
      asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
      y[threadIdx.x] = (t > g) + 2 * (clock64() > start) + 4 * (clock() > c);
    }"""
    y = np.zeros(40, np.int32)
    run(source, "k", 1, 40, [y], strict=False, executor="native")
    assert (y == 7).all()


def test_a_native_launch_says_what_it_reached() -> None:
    source = """extern "C" __global__ void k(float* y, int n) {
      float v = y[threadIdx.x];
      #pragma unroll 1
      for (int i = 0; i < n; i++) { v = v * 1.5f + 1; if (v > 1e30f) y[0] = 7; }
      y[threadIdx.x] = v;
    }"""
    ptx = compile_ptx(Kernel(Path("kernel.cu"), "k", text=source)).ptx
    reports = []
    for executor in ("interpreter", "native"):
        simulator = Simulator(ptx)
        at = simulator.memory.allocate(256)
        args = [at.to_bytes(8, "little"), np.int32(5).tobytes()]
        reports.append(simulator.launch("k", [1], [32], args, executor=executor, reach=True))
    one, two = reports
    assert one.reached == two.reached and one.looped == two.looped and one.instructions == two.instructions > 0
    assert one.lanes == two.lanes


def test_chains_of_products_have_the_interpreters_bits() -> None:
    """Eight rows and columns of sums in registers, with a factor that changes between and odd lengths."""
    source = """extern "C" __global__ void k(const float* x, float* y, int n) {
      float s[4][4] = {}, e = 0;
      for (int k = 0; k < n; k++) {
        float u[4], v[4];
        for (int i = 0; i < 4; i++) u[i] = x[(k * 4 + i) * 32 + threadIdx.x];
        for (int i = 0; i < 4; i++) v[i] = x[(k * 4 + i + 64) * 32 + threadIdx.x];
        for (int i = 0; i < 4; i++)
          for (int j = 0; j < 4; j++) s[i][j] += u[i] * v[j];
        e = fmaf(u[0], u[0], e); e = fmaf(e, v[1], e); u[0] = e; s[1][1] = fmaf(u[0], e, s[1][1]);
        if (threadIdx.x % 3 == 1) for (int i = 0; i < 4; i++) s[i][0] = fmaf(u[i], v[3], fmaf(v[i], u[2], s[i][0]));
      }
      for (int i = 0; i < 16; i++) y[i * 32 + threadIdx.x] = s[i / 4][i % 4];
      y[512 + threadIdx.x] = e;
    }"""
    x = normal(128 * 32 + 640)
    x[::37], x[5] = np.inf, np.nan
    (_, y) = both(source, "k", 1, 32, [x, np.zeros(544, np.float32), np.int32(13)])
    assert np.isfinite(y).any()
    both(source, "k", 1, 27, [normal(128 * 32 + 640), np.zeros(544, np.float32), np.int32(16)])
