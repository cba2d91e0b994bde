"""Instructions of whole warps on the machine in C: the interpreter's bits."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim
from core.sim import KernelError
from core.sim.native.toolchain import compiler
from core.testing.ptx import HEAD

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")

SHAPES = (
    ("m16n8k16", "bf16", 4, 2), ("m16n8k8", "bf16", 2, 1), ("m16n8k16", "f16", 4, 2), ("m16n8k8", "f16", 2, 1),
    ("m16n8k8", "tf32", 4, 2), ("m16n8k4", "tf32", 2, 1),
)  # fmt: skip


def same(ptx: str, threads: int, *arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays after both executors, which must agree on every bit."""
    after = []
    for executor in ("interpreter", "native"):
        own = [array.copy() for array in arrays]
        core.sim.run(ptx, "k", 1, threads, own, strict=False, executor=executor)
        after.append(own)
    for one, other in zip(*after, strict=True):
        assert one.tobytes() == other.tobytes()
    return after[1]


def fragments(kind: str, wild: bool) -> np.ndarray:
    """64 lanes of 8 registers of a kind and 4 accumulators: of usual size, or wild, any bits at all."""
    rng = np.random.default_rng(3)
    words = rng.integers(0, 2**32, (64, 12), np.uint64).astype(np.uint32)
    if not wild and kind == "tf32":
        words = rng.standard_normal((64, 12)).astype(np.float32).view(np.uint32)
    elif not wild:
        usual = rng.standard_normal((64, 24)).astype(np.float16 if kind == "f16" else np.float32)
        halves = usual.view(np.uint16) if kind == "f16" else (usual.view(np.uint32) >> 16).astype(np.uint16)
        words = np.ascontiguousarray(halves).view(np.uint32)
    words[:, 8:] = rng.standard_normal((64, 4)).astype(np.float32).view(np.uint32)
    words[::9, 8] = 0x80000000
    return words


@pytest.mark.parametrize("wild", [False, True], ids=["usual", "any-bits"])
@pytest.mark.parametrize(("shape", "kind", "a", "b"), SHAPES, ids=[f"{s}-{k}" for s, k, _, _ in SHAPES])
def test_mma(shape: str, kind: str, a: int, b: int, wild: bool) -> None:
    registers = [f"%a{i}" for i in range(a)], [f"%b{i}" for i in range(b)], [f"%c{i}" for i in range(4)]
    loads = "".join(
        f"ld.global.b32 {name}, [%p+{first + 4 * i}];\n"
        for first, names in zip((0, 16, 32), registers, strict=True)
        for i, name in enumerate(names)
    )
    left, right, added = (", ".join(names) for names in registers)
    ptx = f"""{HEAD}.visible .entry k(.param .u64 x, .param .u64 y) {{
      .reg .b32 %a<4>, %b<2>, %c<4>, %d<4>, %t; .reg .b64 %p, %q;
      mov.u32 %t, %tid.x; ld.param.u64 %p, [x]; ld.param.u64 %q, [y];
      mad.wide.u32 %p, %t, 48, %p; mad.wide.u32 %q, %t, 16, %q;
      {loads}
      mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32 {{%d0,%d1,%d2,%d3}}, {{{left}}}, {{{right}}}, {{{added}}};
      st.global.v4.b32 [%q], {{%d0,%d1,%d2,%d3}}; ret; }}"""
    result = same(ptx, 64, fragments(kind, wild), np.zeros((64, 4), np.float32))[1]
    assert np.isfinite(result).any() and (wild or np.isfinite(result).all())


# instruction, registers of d, a, b and c, and bits of each
PRODUCTS = (
    ("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", (2, 4, 2, 2), 32),
    ("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f16", (4, 2, 1, 2), 32),
    ("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32", (4, 4, 2, 4), 32),
    ("mma.sync.aligned.m16n8k16.row.col.satfinite.s32.u8.s8.s32", (4, 2, 1, 4), 32),
    ("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64", (2, 1, 1, 2), 64),
    ("mma.sync.aligned.m16n8k4.row.col.f64.f64.f64.f64", (4, 2, 1, 4), 64),
    ("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32", (8, 8, 8, 8), 32),
    ("wmma.mma.sync.aligned.col.row.m32n8k16.f16.f32", (4, 8, 8, 8), 32),
    ("wmma.mma.sync.aligned.row.row.m8n32k16.f32.bf16.bf16.f32", (8, 2, 8, 8), 32),
    ("wmma.mma.sync.aligned.row.col.m16n16k16.s32.s8.s8.s32.satfinite", (8, 2, 2, 8), 32),
    ("wmma.mma.sync.aligned.row.col.m16n16k8.f32.tf32.tf32.f32", (8, 4, 4, 8), 32),
    ("wmma.mma.sync.aligned.row.col.m8n8k4.f64.f64.f64.f64", (2, 1, 1, 2), 64),
)


@pytest.mark.parametrize(("name", "sizes", "bits"), PRODUCTS, ids=[name for name, _, _ in PRODUCTS])
def test_products_of_every_kind(name: str, sizes: tuple[int, ...], bits: int) -> None:
    width, (d, *given) = bits // 8, sizes
    read = [[f"%{x}{i}" for i in range(n)] for x, n in zip("abc", given, strict=True)]
    names = [n for group in read for n in group]
    loads = "".join(f"ld.global.b{bits} {n}, [%p+{width * i}];\n" for i, n in enumerate(names))
    stores = "".join(f"st.global.b{bits} [%q+{width * i}], %d{i};\n" for i in range(d))
    lists = ", ".join(f"{{{', '.join(group)}}}" for group in read)
    ptx = f"""{HEAD}.visible .entry k(.param .u64 x, .param .u64 y) {{
      .reg .b{bits} %a<8>, %b<8>, %c<8>, %d<8>; .reg .b32 %t; .reg .b64 %p, %q;
      mov.u32 %t, %tid.x; ld.param.u64 %p, [x]; ld.param.u64 %q, [y];
      mad.wide.u32 %p, %t, {width * len(names)}, %p; mad.wide.u32 %q, %t, {width * d}, %q;
      {loads}
      {name} {{{", ".join(f"%d{i}" for i in range(d))}}}, {lists};
      {stores} ret; }}"""
    rng = np.random.default_rng(7)
    words = rng.integers(0, 2**32, (64, len(names) * bits // 32), np.uint64).astype(np.uint32)
    if bits == 64:
        words = rng.standard_normal((64, len(names))).view(np.uint32)
    result = same(ptx, 64, words, np.zeros((64, d * bits // 32), np.uint32))[1]
    assert result.any()


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("layout", ["row", "col"])
@pytest.mark.parametrize(("shape", "kind", "count"), [("m16n16k16", "f16", 8), ("m32n8k16", "s8", 4)])
def test_matrices_of_wmma_are_loaded_and_stored(space: str, layout: str, shape: str, kind: str, count: int) -> None:
    result = {"f16": "f16", "s8": "s32"}[kind]
    loaded, stored = ", ".join(f"%a{i}" for i in range(count)), ", ".join(f"%a{i % count}" for i in range(8))
    stored = ", ".join(f"%a{i}" for i in range(4)) if result == "f16" else stored
    at = "%p" if space == "global" else "%s"
    ptx = f"""{HEAD}.visible .entry k(.param .u64 x, .param .u64 y) {{
      .reg .b32 %a<8>, %t, %s, %w; .reg .b64 %p, %q, %r; .shared .align 32 .b8 m[4096];
      mov.u32 %t, %tid.x; ld.param.u64 %p, [x]; ld.param.u64 %q, [y]; mov.u32 %s, m;
      mad.wide.u32 %r, %t, 128, %p; mad.lo.u32 %w, %t, 128, %s;
      {"".join(f"ld.global.b32 %a0, [%r+{4 * i}]; st.shared.b32 [%w+{4 * i}], %a0; " for i in range(32))}
      bar.sync 0;
      wmma.load.a.sync.aligned.{layout}.{shape}.{space}.{kind} {{{loaded}}}, [{at}+64], 40;
      wmma.store.d.sync.aligned.{layout}.{shape}.global.{result} [%q], {{{stored}}};
      ret; }}"""
    words = np.random.default_rng(9).integers(0, 2**32, 1024, np.uint64).astype(np.uint32)
    assert same(ptx, 32, words, np.zeros(256, np.uint32))[1].any()


@pytest.mark.parametrize("trans", ["", ".trans"], ids=["plain", "transposed"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_copies_to_shared_memory_and_matrices_there(count: int, trans: str) -> None:
    names = ", ".join(f"%d{i}" for i in range(count))
    ptx = f"""{HEAD}.visible .entry k(.param .u64 x, .param .u64 y) {{
      .reg .b32 %d<4>, %t, %s, %z, %w; .reg .b64 %p, %q; .shared .align 16 .b8 m[1024];
      mov.u32 %t, %tid.x; ld.param.u64 %p, [x]; ld.param.u64 %q, [y];
      mad.wide.u32 %p, %t, 16, %p; mad.wide.u32 %q, %t, 16, %q; mov.u32 %s, m; mad.lo.u32 %s, %t, 16, %s;
      cp.async.cg.shared.global [%s], [%p], 16;
      and.b32 %z, %t, 7; shl.b32 %z, %z, 1;
      cp.async.ca.shared.global [%s+512], [%p], 8, %z;
      cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;
      mov.u32 %d0, 1; mov.u32 %d1, 2; mov.u32 %d2, 3; mov.u32 %d3, 4; xor.b32 %w, %s, 48;
      ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{names}}}, [%w];
      movmatrix.sync.aligned.m8n8.trans.b16 %t, %d0;
      stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%s], {{{names}}};
      bar.sync 0; ld.shared.v4.b32 {{%d0,%d1,%d2,%d3}}, [%s]; xor.b32 %d0, %d0, %t;
      st.global.v4.b32 [%q], {{%d0,%d1,%d2,%d3}};
      ld.shared.v2.b32 {{%d0,%d1}}, [%s+512]; st.global.v2.b32 [%q+512], {{%d0,%d1}}; ret; }}"""
    words = np.random.default_rng(5).integers(0, 2**32, (32, 4), np.uint64).astype(np.uint32)
    result = same(ptx, 32, words, np.zeros((64, 4), np.uint32))[1]
    assert result[:32].any(1).all()


@pytest.mark.parametrize("executor", ["interpreter", "native"])
def test_part_of_a_warp_at_a_tensor_core_is_an_error(executor: str) -> None:
    ptx = f"""{HEAD}.visible .entry k() {{
      .reg .b32 %d, %t; .reg .pred %q; mov.u32 %t, %tid.x; setp.lt.u32 %q, %t, 16; @!%q bra END;
      movmatrix.sync.aligned.m8n8.trans.b16 %d, %t;
      END: ret; }}"""
    with pytest.raises(KernelError, match="an instruction of 32 threads is reached by only some of them"):
        core.sim.run(ptx, "k", 1, 32, [], strict=False, executor=executor)
