"""Asynchronous kernels, legal and deliberately broken: strict mode reports each missing wait, fence and arrival."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.kernels.nvrtc import Kernel, compile_ptx
from core.sim import KernelError, Simulator
from core.sim.instructions.tensormap import encode

pytestmark = pytest.mark.usefixtures("screens")

rng = np.random.default_rng(5)

# Two buffers filled by cp.async, one ahead of the sums.
PIPELINE = """
__device__ unsigned at(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
extern "C" __global__ void pipeline(float* y, const float* x, int tiles) {
    __shared__ alignas(16) float box[2][128];
    float sum = 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
                 :: "r"(at(&box[0][threadIdx.x])), "l"(x + threadIdx.x) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
    for (int i = 0; i < tiles; i++) {
        if (i + 1 < tiles)
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
                         :: "r"(at(&box[(i + 1) % 2][threadIdx.x])), "l"(x + (i + 1) * 128 + threadIdx.x) : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        __syncthreads(); // full
        sum += box[i % 2][127 - threadIdx.x];
        __syncthreads(); // empty
    }
    asm volatile("cp.async.wait_group 0;" ::: "memory"); // last
    y[threadIdx.x] = sum;
}"""

# y = a b^T, 64 x 64 x 64 in bf16: tensor copies in, wgmma, a tensor copy out.
PRODUCT = """
struct alignas(64) Map { unsigned long long words[16]; };
typedef unsigned u32;
typedef unsigned long long u64;
__device__ u32 at(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ u64 descriptor(u32 a) { return (u64)((a & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62; }
__device__ void get(u32 to, const Map* m, u32 bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %3}], [%2];" :: "r"(to), "l"(m), "r"(bar), "r"(0) : "memory");
}
extern "C" __global__ void product(const __grid_constant__ Map a, const __grid_constant__ Map b,
                                   const __grid_constant__ Map y) {
    __shared__ alignas(1024) unsigned short left[64 * 64], right[64 * 64];
    __shared__ alignas(1024) float out[64 * 32];
    __shared__ alignas(8) u64 bar;
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(at(&bar)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads(); // ready
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 16384;" :: "r"(at(&bar)) : "memory");
        get(at(left), &a, at(&bar));
        get(at(right), &b, at(&bar));
    }
    asm volatile("{.reg .pred P; W: mbarrier.try_wait.parity.shared::cta.b64 P, [%0], 0; @!P bra W; }"
                 :: "r"(at(&bar)) : "memory"); // landed
    float d[16];
    for (int i = 0; i < 16; i++) {
        d[i] = threadIdx.x * i;
        asm volatile("" : "+f"(d[i]) :: "memory");  // the compiler may not move this below the fence
    }
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    for (int k = 0; k < 4; k++)
        asm volatile("{.reg .pred p; setp.ne.b32 p, %18, 0;\\n"
            "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16"
            " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, p, 1, 1, 0, 0;}"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
              "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
            : "l"(descriptor(at(left) + k * 32)), "l"(descriptor(at(right) + k * 32)), "r"(k));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < 16; i++) {
        int row = warp * 16 + i / 2 % 2 * 8 + lane / 4, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        out[row * 32 + column] = d[i];
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads(); // written
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %2}], [%1];"
                     :: "l"(&y), "r"(at(out)), "r"(0) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}"""


def simulator(source: str, kernel: str) -> Simulator:
    return Simulator(compile_ptx(Kernel(Path("kernel.cu"), kernel, text=source)).ptx)


def put(s: Simulator, values: Any) -> int:
    address = s.memory.allocate(values.nbytes, "argument")
    s.memory.write(address, values)
    return address


def run_pipeline(source: str, strict: bool = True) -> Any:
    s = simulator(source, "pipeline")
    x = rng.standard_normal((5, 128)).astype(np.float32)
    y, source_x = s.memory.allocate(512, "y"), put(s, x)
    s.launch("pipeline", (1,), (128,), [np.uint64(y).tobytes(), np.uint64(source_x).tobytes(), np.int32(5).tobytes()],
             strict=strict)  # fmt: skip
    wanted = np.zeros(128, np.float32)
    for row in x:
        wanted = wanted + row[::-1]
    return s.memory.read(y, 512).view(np.float32), wanted


def run_product(source: str, strict: bool = True, swizzle: int = 128) -> Any:
    s = simulator(source, "product")
    a, b = (rng.integers(-4, 5, (n, 64)).astype(np.float32) for n in (64, 64))
    bits = [(v.view(np.uint32) >> 16).astype(np.uint16) for v in (a, b)]
    maps = [encode(put(s, v), "bf16", 2, (64, 64), (128,), (64, 64), swizzle) for v in bits]
    y = s.memory.allocate(64 * 32 * 4, "y")
    maps.append(encode(y, "f32", 4, (32, 64), (128,), (32, 64), 0))
    s.launch("product", (1,), (128,), maps, strict=strict)
    return s.memory.read(y, 64 * 32 * 4).view(np.float32).reshape(64, 32), a @ b[:32].T


RUNS = {"pipeline": (PIPELINE, run_pipeline), "product": (PRODUCT, run_product)}


def drop(pattern: str) -> tuple[str, str]:
    """Takes away the asm statement that contains `pattern`."""
    return rf"asm volatile\(\"[^;]*{pattern}[^;]*;\"[^;]*;", ""


FULL, EMPTY, READY, LANDED, WRITTEN = (
    rf"__syncthreads\(\); // {w}" for w in ("full", "empty", "ready", "landed", "written")
)
EXTRA = r'asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at(&box[0][threadIdx.x])), "l"(x) : "memory");'
BROKEN: list[tuple[str, tuple[str, str], str]] = [
    ("pipeline", (r"wait_group 1", "wait_group 2"), "in flight"),
    ("pipeline", drop("wait_group 1"), "in flight"),
    ("pipeline", (FULL, ""), "race"),
    ("pipeline", (EMPTY, ""), "race"),
    ("pipeline", (r"box\[i % 2\]", "box[(i + 1) % 2]"), "in flight"),
    ("pipeline", (r"\(i \+ 1\) % 2\]\[threadIdx", "i % 2][threadIdx"), "in flight"),
    ("pipeline", (r"\"cp.async.wait_group 0;\" ::: \"memory\"\); // last", "\"\");"), ""),
    ("pipeline", (r"tiles\)\n", "tiles + 1)\n"), "out of bounds"),
    ("pipeline", (r"// last", EXTRA), "exit in flight"),
    ("product", drop("mbarrier.init"), "mbarrier"),
    ("product", (READY, ""), "mbarrier"),
    ("product", (r"16384", "16640"), "deadlock"),
    ("product", (r"16384", "8192"), "in flight"),
    ("product", (r"b64 _, \[%0\], 16384", "b64 _, [%0], 16384; mbarrier.arrive.shared::cta.b64 _, [%0]"), "any"),
    ("product", (r"\.b64 P, \[%0\], 0; @!P bra W", ".b64 P, [%0], 1; @!P bra W"), "in flight"),
    ("product", (r"\[%0\], 1;\"", "[%0], 2;\""), "deadlock"),
    ("product", drop("wgmma.fence"), "wgmma fence"),
    ("product", drop("wgmma.wait_group"), "wgmma registers"),
    ("product", (r"wait_group.sync.aligned 0", "wait_group.sync.aligned 1"), "wgmma registers"),
    ("product", drop("wgmma.commit_group"), "wgmma registers"),
    ("product", (r"(asm volatile\(\"wgmma.commit)", r"left[threadIdx.x] = 0;\n    \1"), "in flight"),
    ("product", drop("fence.proxy"), "proxy fence"),
    ("product", (WRITTEN, ""), "any"),
    ("product", drop("bulk.commit_group"), "exit in flight"),
    ("product", drop("bulk.wait_group"), "exit in flight"),
    ("product", (r"bulk.wait_group 0;\" ::: \"memory\"\);", "bulk.wait_group 1;\" ::: \"memory\");"), "exit in flight"),
    ("product", (r"(?s)(bulk.commit_group;\" ::: \"memory\"\);)", r"\1 out[5] = 1;"), "in flight"),
    ("product", (r"\"l\"\(&y\)", "\"l\"(out)"), "any"),
]  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_legal_asynchronous_kernels_raise_no_alarm(name):
    source, run = RUNS[name]
    for strict in (False, True):
        got, wanted = run(source, strict)
        assert np.allclose(got, wanted, rtol=1e-6), strict


@pytest.mark.parametrize(("name", "change", "kind"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_asynchronous_kernel_is_reported(name, change, kind):
    source, run = RUNS[name]
    broken = re.sub(*change, source, count=1)
    assert broken != source
    if kind == "":
        run(broken)  # nothing is left under way at that point: a wait too many is legal
        return
    with pytest.raises(KernelError) as caught:
        run(broken)
    assert kind == "any" or caught.value.kind == kind, str(caught.value)


# The product once more, after its registers were read: FENCE is what the manual asks for in between.
AGAIN = re.search(r"(    for \(int k = 0; k < 4.*?)    int warp", PRODUCT, re.DOTALL)[1]  # type: ignore[index]
STORED = "        out[row * 32 + column] = d[i];\n    }\n"
FENCE = '    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");\n'
OTHER = FENCE.replace("fence.sync.aligned", "wait_group.sync.aligned 0")
# name -> (what stands behind the first product, whether that is legal)
FENCES = {
    "a fence after an epilogue's reads": (FENCE + AGAIN, True),
    "none after an epilogue's reads": (AGAIN, False),
    "a fence before the reads": ("", False),
    "another kind of wait": (OTHER + AGAIN, False),
    "a fence for both products": (FENCE + AGAIN + AGAIN, True),
    "a write after the fence": (FENCE + '    asm volatile("neg.f32 %0, %0;" : "+f"(d[3]));\n' + AGAIN, False),
    "another shape on the same accumulators": (FENCE + AGAIN + AGAIN.replace("n32k16", "n24k16").replace(
        ",%12,%13,%14,%15}", "}"), False),
    "another shape behind a fence": (FENCE + AGAIN + FENCE + AGAIN.replace("n32k16", "n24k16").replace(
        ",%12,%13,%14,%15}", "}"), True),
}  # fmt: skip


@pytest.mark.parametrize("name", FENCES)
def test_a_wgmma_needs_a_fence_after_any_access_to_its_registers(name):
    more, legal = FENCES[name]
    if name == "a fence before the reads":
        loop = "    int warp = threadIdx.x / 32"
        source = PRODUCT.replace(loop, FENCE + loop).replace(STORED, STORED + AGAIN)
    else:
        source = PRODUCT.replace(STORED, STORED + more)
    assert source != PRODUCT
    if legal:
        got, wanted = run_product(source)
        assert np.allclose(got, wanted)
        return
    with pytest.raises(KernelError) as caught:
        run_product(source)
    assert caught.value.kind == "wgmma fence", str(caught.value)


def test_the_first_wgmma_of_a_kernel_needs_a_fence_even_for_constants():
    constant = re.sub(r"(?s)    for \(int i = 0; i < 16; i\+\+\) \{\n        d\[i\] = .*?\n    \}\n", "", PRODUCT)
    constant = constant.replace("float d[16];", "float d[16] = {};")
    got, wanted = run_product(constant)
    assert np.allclose(got, wanted)
    with pytest.raises(KernelError) as caught:
        run_product(constant.replace(FENCE, ""))
    assert caught.value.kind == "wgmma fence" and "first wgmma" in str(caught.value)


def test_a_descriptor_must_have_the_swizzle_of_the_copy():
    with pytest.raises(KernelError) as caught:
        run_product(PRODUCT, swizzle=0)
    assert caught.value.kind == "swizzle"
