"""Tensor-core and copy-engine instructions: layouts by the PTX manual's formulas, copies against NumPy's slices."""

from __future__ import annotations

import numpy as np
import pytest

import core.sim
from core.sim import KernelError
from core.testing.ptx import HEAD

rng = np.random.default_rng(3)
LANE = np.arange(32)
GROUP, MEMBER = LANE // 4, LANE % 4


def bf16(values):
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def wide(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def words(low, high):
    return low.astype(np.uint32) | high.astype(np.uint32) << 16


def kernel(body: str, inputs: int, outputs: int) -> str:
    """A warp that loads `inputs` words per lane into %i0.. and stores %o0.."""
    loads = "".join(f"ld.global.b32 %i{j}, [%p+{128 * j}];\n" for j in range(inputs))
    stores = "".join(f"st.global.b32 [%p+{128 * j}], %o{j};\n" for j in range(outputs))
    return f"""{HEAD}
.visible .entry k(.param .u64 k_0, .param .u64 k_1)
{{ .reg .b64 %p, %q; .reg .b32 %t, %s, %i<16>, %o<16>; .shared .align 128 .b8 box[4096];
mov.u32 %t, %tid.x; ld.param.u64 %q, [k_0]; mad.wide.u32 %p, %t, 4, %q; mov.u32 %s, box;
{loads} {body}
ld.param.u64 %q, [k_1]; mad.wide.u32 %p, %t, 4, %q;
{stores} ret; }}"""


def run(body, inputs, outputs):
    given = np.ascontiguousarray(np.stack(inputs).astype(np.uint32))
    out = np.zeros((outputs, 32), np.uint32)
    core.sim.run(kernel(body, len(inputs), outputs), "k", 1, 32, [given, out])
    return out


def test_mma_bf16_follows_the_manuals_layout():
    a, b, c = (rng.standard_normal(s).astype(np.float32) for s in ((16, 16), (16, 8), (16, 8)))
    a, b = wide(bf16(a)), wide(bf16(b))
    fragments = []
    for i in range(4):  # a[2i], a[2i+1]: row group (+8 for odd i), column member*2 (+8 from i = 2 on)
        row, column = GROUP + 8 * (i % 2), MEMBER * 2 + 8 * (i // 2)
        fragments.append(words(bf16(a[row, column]), bf16(a[row, column + 1])))
    for i in range(2):
        row = MEMBER * 2 + 8 * i
        fragments.append(words(bf16(b[row, GROUP]), bf16(b[row + 1, GROUP])))
    for i in range(4):
        fragments.append(c[GROUP + 8 * (i // 2), MEMBER * 2 + i % 2].view(np.uint32))
    out = run(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%o0,%o1,%o2,%o3}, {%i0,%i1,%i2,%i3}, {%i4,%i5},"
        " {%i6,%i7,%i8,%i9};", fragments, 4,
    ).view(np.float32)  # fmt: skip
    exact = (a.astype(np.float64) @ b + c).astype(np.float32)
    for i in range(4):
        assert (out[i] == exact[GROUP + 8 * (i // 2), MEMBER * 2 + i % 2]).all()


def test_mma_tf32_follows_the_manuals_layout():
    a, b = (rng.integers(-50, 50, s).astype(np.float32) for s in ((16, 8), (8, 8)))
    fragments = [a[GROUP + 8 * (i % 2), MEMBER + 4 * (i // 2)].view(np.uint32) for i in range(4)]
    fragments += [b[MEMBER + 4 * i, GROUP].view(np.uint32) for i in range(2)]
    fragments += [np.zeros(32, np.uint32)] * 4
    out = run(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%o0,%o1,%o2,%o3}, {%i0,%i1,%i2,%i3}, {%i4,%i5},"
        " {%i6,%i7,%i8,%i9};", fragments, 4,
    ).view(np.float32)  # fmt: skip
    for i in range(4):
        assert (out[i] == (a @ b)[GROUP + 8 * (i // 2), MEMBER * 2 + i % 2]).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix_and_stmatrix(transposed):
    trans = ".trans" if transposed else ""
    matrices = rng.integers(0, 2**16, (4, 8, 8)).astype(np.uint16)
    fragments = [words(matrices[j][GROUP, MEMBER * 2], matrices[j][GROUP, MEMBER * 2 + 1]) for j in range(4)]
    place = "shl.b32 %o15, %t, 4; add.u32 %o15, %s, %o15;"
    out = run(
        f"{place} stmatrix.sync.aligned.m8n8.x4.shared.b16 [%o15], {{%i0,%i1,%i2,%i3}}; bar.warp.sync -1;"
        f"ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%o0,%o1,%o2,%o3}}, [%o15];", fragments, 4,
    )  # fmt: skip
    for j in range(4):
        m = matrices[j].T if transposed else matrices[j]
        assert (out[j] == words(m[GROUP, MEMBER * 2], m[GROUP, MEMBER * 2 + 1])).all()


def test_movmatrix_transposes():
    m = rng.integers(0, 2**16, (8, 8)).astype(np.uint16)
    out = run(
        "movmatrix.sync.aligned.m8n8.trans.b16 %o0, %i0;", [words(m[GROUP, MEMBER * 2], m[GROUP, MEMBER * 2 + 1])], 1
    )
    assert (out[0] == words(m.T[GROUP, MEMBER * 2], m.T[GROUP, MEMBER * 2 + 1])).all()


def test_cp_async_zero_fills_beyond_the_source_size():
    ptx = f"""{HEAD}
.visible .entry k(.param .u64 k_0, .param .u64 k_1)
{{ .reg .b64 %p, %q; .reg .b32 %t, %s, %a, %v<4>; .shared .align 16 .b8 box[512];
mov.u32 %t, %tid.x; shl.b32 %a, %t, 4; mov.u32 %s, box; add.u32 %s, %s, %a;
ld.param.u64 %q, [k_0]; mad.wide.u32 %p, %t, 16, %q; and.b32 %a, %t, 15;
cp.async.ca.shared.global [%s], [%p], 16, %a; cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;
ld.shared.v4.b32 {{%v0,%v1,%v2,%v3}}, [%s];
ld.param.u64 %q, [k_1]; mad.wide.u32 %p, %t, 16, %q; st.global.v4.b32 [%p], {{%v0,%v1,%v2,%v3}}; ret; }}"""
    data, out = rng.integers(1, 255, (32, 16)).astype(np.uint8), np.zeros((32, 16), np.uint8)
    core.sim.run(ptx, "k", 1, 32, [data, out])
    assert (out == np.where(np.arange(16) < (LANE % 16)[:, None], data, 0)).all()


# --------------------------------------------------------------------------- tensor copies
def tensor_kernel(rank: int, nbytes: int, store: str) -> str:
    """One thread brings the box at coordinates k_2 ... of k_0's tensor, and takes it to the same place in k_1's."""
    coordinates = "{" + ", ".join(f"%c{i}" for i in range(rank)) + "}"
    loads = "".join(f"ld.param.u32 %c{i}, [k_{2 + i}];\n" for i in range(rank))
    numbers = "".join(f", .param .u32 k_{2 + i}" for i in range(rank))
    return f"""{HEAD}
.visible .entry k(.param .align 64 .b8 k_0[128], .param .align 64 .b8 k_1[128]{numbers})
{{ .reg .b64 %m, %n, %st; .reg .b32 %t, %s, %b, %c<5>; .reg .pred %q; .shared .align 1024 .b8 box[{nbytes}];
.shared .align 8 .b8 bar[8];
mov.u32 %t, %tid.x; mov.u32 %s, box; mov.u32 %b, bar; mov.b64 %m, k_0; mov.b64 %n, k_1;
cvta.param.u64 %m, %m; cvta.param.u64 %n, %n;
{loads}
setp.ne.u32 %q, %t, 0; @%q bra DONE;
mbarrier.init.shared::cta.b64 [%b], 1;
fence.mbarrier_init.release.cluster;
mbarrier.arrive.expect_tx.shared::cta.b64 %st, [%b], {nbytes};
cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%m, {coordinates}], [%b];
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %q, [%b], 0; @!%q bra WAIT;
{store.format(rank=rank, coordinates=coordinates)}
cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
DONE: ret; }}"""


STORE = "cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group [%n, {coordinates}], [%s];"
REDUCE = "cp.reduce.async.bulk.tensor.{rank}d.global.shared::cta.add.tile.bulk_group [%n, {coordinates}], [%s];"


@pytest.mark.parametrize("store", [STORE, REDUCE], ids=["store", "reduce"])
@pytest.mark.parametrize("swizzle", [0, 128])
@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_tensor_copies_of_every_rank_fill_zeros_outside_and_store_nothing_there(rank, swizzle, store):
    shape = (3, 2, 4, 7, 44)[-rank:]
    box = (1, 2, 2, 8, 32)[-rank:]
    start = (1, 0, 1, 3, 20)[-rank:]
    source = rng.integers(1, 100, shape).astype(np.float32)
    target = rng.integers(1, 100, shape).astype(np.float32)
    got = target.copy()
    maps = [core.sim.Map(array, box[::-1], swizzle) for array in (source, got)]
    at = [np.int32(c) for c in start[::-1]]
    core.sim.run(tensor_kernel(rank, int(np.prod(box)) * 4, store), "k", 1, 32, [*maps, *at])
    window = tuple(slice(a, min(a + b, n)) for a, b, n in zip(start, box, shape, strict=True))
    wanted = target.copy()
    wanted[window] = source[window] + (target[window] if store is REDUCE else 0)
    assert (got == wanted).all()


BULK = ("const int* x", "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
        " [%0], [%1], 128, [%2], %3;", "x")  # fmt: skip
TILE = ("const __grid_constant__ Map x",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
        " [%0], [%1, {%4, %4}], [%2], %3;", "&x")  # fmt: skip


@pytest.mark.parametrize(("parameter", "copy", "place"), [BULK, TILE], ids=["bulk", "tensor"])
def test_multicast_writes_every_thread_block_of_the_mask_and_its_mbarrier(parameter, copy, place):
    source = """
struct alignas(64) Map { unsigned long long words[16]; };
extern "C" __global__ void __cluster_dims__(2) k(int* y, PARAMETER) {
    __shared__ alignas(128) int box[32];
    __shared__ alignas(8) unsigned long long bar;
    unsigned b = (unsigned)__cvta_generic_to_shared(&bar), s = (unsigned)__cvta_generic_to_shared(box), rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(b) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 128;" :: "r"(b) : "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
    if (threadIdx.x == 0 && rank == 0)
        asm volatile("COPY" :: "r"(s), "l"(PLACE), "r"(b), "h"((short)3), "r"(0) : "memory");
    asm volatile("{.reg .pred P; W: mbarrier.try_wait.parity.shared::cta.b64 P, [%0], 0; @!P bra W; }"
                 :: "r"(b) : "memory");
    y[blockIdx.x * 32 + threadIdx.x] = box[threadIdx.x] + blockIdx.x;
    unsigned peer, value;
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(peer) : "r"(s), "r"(rank ^ 1));
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(peer + 4 * threadIdx.x));
    y[blockIdx.x * 32 + threadIdx.x] += value;
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
}"""
    x, y = np.arange(100, 132, dtype=np.int32), np.zeros(128, np.int32)
    source = source.replace("PARAMETER", parameter).replace("COPY", copy).replace("PLACE", place)
    given = core.sim.Map(x.reshape(4, 8), (8, 4)) if place == "&x" else x
    core.sim.run(source, "k", 4, 32, [y, given], cluster=2)
    assert (y.reshape(4, 32) == 2 * x + np.arange(4)[:, None]).all()


BARRIER = """
extern "C" __global__ void k(int* y) {
    __shared__ alignas(8) unsigned long long bar;
    unsigned b = (unsigned)__cvta_generic_to_shared(&bar);
    if (threadIdx.x == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], COUNT;" :: "r"(b) : "memory");
    __syncthreads();
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(b) : "memory");
    asm volatile("{.reg .pred P; W: mbarrier.try_wait.parity.shared::cta.b64 P, [%0], 0; @!P bra W; }"
                 :: "r"(b) : "memory");
    y[threadIdx.x] = 1;
}"""


@pytest.mark.parametrize(("count", "kind"), [("64", None), ("16", "mbarrier"), ("65", "deadlock")])
def test_an_mbarrier_completes_at_its_count(count, kind):
    y = np.zeros(64, np.int32)
    source = BARRIER.replace("COUNT", count)
    if kind == "mbarrier":
        source = source.replace("_, [%0];", "_, [%0], 17;")
    if kind is None:
        core.sim.run(source, "k", 1, 64, [y])
        assert y.all()
        return
    with pytest.raises(KernelError) as caught:
        core.sim.run(source, "k", 1, 64, [y])
    assert caught.value.kind == kind


def test_an_uninitialised_mbarrier_is_reported():
    with pytest.raises(KernelError) as caught:
        core.sim.run(
            BARRIER.replace("threadIdx.x == 0", "false").replace("COUNT", "64"), "k", 1, 64, [np.zeros(64, np.int32)]
        )
    assert caught.value.kind == "mbarrier"


# --------------------------------------------------------------------------- wgmma
def swizzled_rows(matrix, first=0):
    """Rows of up to 64 bf16 as a 128-byte swizzle lays them: 128 bytes a row, 16-byte pieces exchanged by row % 8.

    first: the row of the pattern at which the matrix begins.
    """
    image = np.zeros((len(matrix), 64), np.uint16)
    for row, values in enumerate(matrix):
        for column, value in enumerate(bf16(values)):
            image[row, column // 8 * 8 ^ (row + first) % 8 * 8 | column % 8] = value
    return image.reshape(-1).view(np.uint8)


def wgmma_kernel(operands: str, at: int = 0, base: int = 0) -> str:
    """at: bytes into `box` at which the matrices begin; base: the base offset of their descriptors."""
    copies = "".join(
        f"ld.global.v4.b32 {{%a0,%a1,%a2,%a3}}, [%p+{at}]; st.shared.v4.b32 [%s+{at}], {{%a0,%a1,%a2,%a3}};\n"
        for at in range(0, 16384, 2048)
    )
    stores = "".join(f"st.global.f32 [%p+{4 * i}], %d{i};\n" for i in range(8))
    return f"""{HEAD}
.visible .entry k(.param .u64 k_0, .param .u64 k_1, .param .u64 k_2)
{{ .reg .b64 %p, %q, %da, %db; .reg .b32 %t, %s, %b, %a<4>; .reg .f32 %d<8>; .reg .pred %z;
.shared .align 1024 .b8 box[16384];
mov.u32 %t, %tid.x; mov.u32 %b, box; shl.b32 %s, %t, 4; add.u32 %s, %b, %s;
ld.param.u64 %q, [k_0]; mad.wide.u32 %p, %t, 16, %q;
{copies}
fence.proxy.async.shared::cta; bar.sync 0;
ld.param.u64 %q, [k_1]; mad.wide.u32 %p, %t, 16, %q; ld.global.v4.b32 {{%a0,%a1,%a2,%a3}}, [%p];
shr.u32 %b, %b, 4; cvt.u64.u32 %da, %b;
or.b64 %da, %da, {0x4000004002000000 | base << 49:#x}; add.u64 %da, %da, {at // 16}; add.u64 %db, %da, 512;
setp.ne.u32 %z, 0, 0;
wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {{%d0,%d1,%d2,%d3,%d4,%d5,%d6,%d7}}, {operands};
wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
ld.param.u64 %q, [k_2]; mad.wide.u32 %p, %t, 32, %q;
{stores} ret; }}"""


@pytest.mark.parametrize("columns", [False, True], ids=["b rows", "b columns"])
@pytest.mark.parametrize("form", ["rows", "columns", "registers"])
def test_wgmma_multiplies_matrices_of_every_orientation_and_from_registers(form, columns):
    a, b = (rng.integers(-9, 10, shape).astype(np.float32) for shape in ((64, 16), (16, 16)))  # b is k by n
    image = np.zeros(16384, np.uint8)
    left, right = swizzled_rows(a.T if form == "columns" else a), swizzled_rows(b if columns else b.T)
    image[: len(left)], image[8192 : 8192 + len(right)] = left, right
    thread = np.arange(128)
    row, column = thread // 32 * 16 + thread % 32 // 4, thread % 4 * 2
    fragment = [bf16(a[row + 8 * (i % 2), column + 8 * (i // 2) + j]) for i in range(4) for j in range(2)]
    fragment = np.ascontiguousarray(np.stack(fragment, 1)).view(np.uint32)
    matrix, turned = ("{%a0,%a1,%a2,%a3}", "") if form == "registers" else ("%da", f" {int(form == 'columns')},")
    out = np.zeros((128, 8), np.float32)
    core.sim.run(wgmma_kernel(f"{matrix}, %db, %z, 1, -1,{turned} {int(columns)}"), "k", 1, 128, [image, fragment, out])
    for i in range(8):  # -1 is B's sign
        assert (out[:, i] == -(a @ b)[row + 8 * (i // 2 % 2), column + i // 4 * 8 + i % 2]).all()


@pytest.mark.parametrize("base", [0, 3], ids=["pattern of the address", "pattern of the matrix"])
def test_wgmma_reads_a_matrix_that_begins_inside_of_the_swizzle_pattern(base):
    """PTX ISA, Matrix Descriptor Format: base offset = (where the pattern starts >> 7) & 7."""
    a, b = (rng.integers(-9, 10, shape).astype(np.float32) for shape in ((64, 16), (16, 16)))
    image, at = np.zeros(16384, np.uint8), 3 * 128
    for place, matrix in ((at, a), (8192 + at, b.T)):
        rows = swizzled_rows(matrix, 3 - base)
        image[place : place + len(rows)] = rows
    out = np.zeros((128, 8), np.float32)
    text = wgmma_kernel("%da, %db, %z, 1, 1, 0, 0", at, base)
    core.sim.run(text, "k", 1, 128, [image, np.zeros((128, 4), np.uint32), out])
    thread = np.arange(128)
    row, column = thread // 32 * 16 + thread % 32 // 4, thread % 4 * 2
    for i in range(8):
        assert (out[:, i] == (a @ b)[row + 8 * (i // 2 % 2), column + i // 4 * 8 + i % 2]).all()


BOX = """
struct alignas(64) Map { char bytes[128]; };
extern "C" __global__ void k(const __grid_constant__ Map m, unsigned short* y) {
    __shared__ alignas(1024) unsigned char room[4096];
    __shared__ alignas(8) unsigned long long bar;
    unsigned b = (unsigned)__cvta_generic_to_shared(&bar), d = (unsigned)__cvta_generic_to_shared(room + AT);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(b) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(b), "r"(16 * WIDTH) : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                     " [%0], [%1, {%3, %3}], [%2];" :: "r"(d), "l"(&m), "r"(b), "r"(0) : "memory");
    }
    __syncthreads();
    asm volatile("{.reg .pred p; W: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0; @!p bra W;}" :: "r"(b));
    for (int i = threadIdx.x; i < 8 * WIDTH; i += 32) y[i] = *(unsigned short*)(room + AT + i * 2);
}"""


@pytest.mark.parametrize("at", [0, 128, 384, 640, 1024])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_a_swizzled_box_may_begin_at_any_128_bytes(width, at):
    """CUDA C++ Programming Guide, "The Swizzle Modes": smem[y][((y + offset) % 8) ^ x], offset = smem_ptr / 128 % 8.

    The rows of the narrower modes are 128 bytes of `width` each: `y` is then a line of 128 bytes, and `x` its 16-byte
    piece, of which only the lower bits are exchanged.
    """
    values = np.arange(16 * width // 2, dtype=np.uint16)
    got = np.zeros(8 * width, np.uint16)
    box = core.sim.Map(values.reshape(16, width // 2), (width // 2, 16), width)
    core.sim.run(BOX, "k", 1, 32, [box, got], defines={"AT": at, "WIDTH": width})
    pieces, lines = got.reshape(-1, 8, 8), got.size // 64
    line, piece = np.arange(lines)[:, None], np.arange(8)[None, :]
    swapped = piece ^ (line + at // 128) % (width // 16)
    assert (pieces[line, swapped].reshape(-1) == values).all()


def test_a_tensor_copy_asks_for_128_bytes_of_alignment():
    box = core.sim.Map(np.zeros((16, 64), np.uint16), (64, 16), 128)
    with pytest.raises(KernelError, match="the shared address must be a multiple of 128 bytes"):
        core.sim.run(BOX, "k", 1, 32, [box, np.zeros(1024, np.uint16)], defines={"AT": 64, "WIDTH": 128})
