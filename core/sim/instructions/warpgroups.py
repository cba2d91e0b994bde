"""Tensor-core instructions of a warpgroup: wgmma, its matrices in shared memory, and their swizzles.

Fragment layouts are those of PTX ISA 9.7.15; sums as in tensor_cores.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.sim.instructions.access import locate
from core.sim.instructions.float_formats import canonical
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Read, Step, Write, bits_reader, writer
from core.sim.instructions.tensor_cores import DECODE, U32, WARP, a_matrix, products, registers, whole
from core.sim.ptx.effects import elements
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import BOOL, UNSIGNED, Array
from core.sim.ptx.syntax import Immediate, Instruction, Vector
from core.sim.resident import Group

FAMILY = Family()
opcode = FAMILY.opcode

WARPGROUP = 128
NAN = 0x7FFFFFFF
SWIZZLES = {0: 0, 1: 128, 2: 64, 3: 32}  # by the descriptor's bits 62-63


def swizzled(offset: Array, swizzle: int, base: int = 0) -> Array:
    """Shared addresses with bits 4-6 exchanged by those above 6, as tensor copies and wgmma see them.

    base: where the pattern starts, in units of 128 bytes; 0 where it starts at multiples of 1,024.
    """
    mask = {0: 0, 32: 1, 64: 3, 128: 7}[swizzle]
    return np.asarray(offset ^ ((((offset >> 7) - base) & mask) << 4))


def descriptor_offsets(descriptor: int, rows: int, depth: int, nbytes: int, transposed: bool) -> Array:
    """Shared addresses (rows, depth) of the matrix that a descriptor describes; PTX ISA 9.7.15.5.

    `rows` runs along M or N. K-major: 8 rows of one swizzle span make an atom, `stride` bytes apart. Otherwise
    M or N is contiguous: spans of it are `leading` apart, groups of 8 of K `stride`. The matrix may start at any
    multiple of 16 bytes; the base offset (bits 49-51) is the start of the pattern, as PTX ISA's "Matrix Descriptor
    Format" defines it: 0 for a pattern that starts at 1,024 bytes (512 and 256 under the narrower swizzles), as tensor
    copies write it at any address; else (start of the pattern >> 7) & 7.
    """
    start, leading, stride = ((descriptor >> at & 0x3FFF) << 4 for at in (0, 16, 32))
    span = SWIZZLES[descriptor >> 62 & 3]
    r, k = np.arange(rows)[:, None], np.arange(depth)[None, :]
    if span == 0:
        inner = 16 // nbytes
        along, across = (r, k) if transposed else (k, r)
        offset = across // 8 * (leading if transposed else stride) + across % 8 * 16
        offset = offset + along // inner * (stride if transposed else leading) + along % inner * nbytes
    elif not transposed:
        offset = r // 8 * stride + r % 8 * span + k * nbytes
    else:
        inner = span // nbytes
        offset = r // inner * leading + r % inner * nbytes + k // 8 * stride + k % 8 * span
    return swizzled(start + offset, span, descriptor >> 49 & 7)


@dataclass(frozen=True)
class WarpgroupProduct:
    """d = +-A B (+ d) of a warpgroup: (64, depth) by (depth, n), of elements of `kind`."""

    ins: Instruction
    n: int
    depth: int
    kind: str
    sign: float

    def matrix(self, g: Group, descriptors: Array, rows: int, transposed: bool) -> tuple[Array, Array, Array]:
        """A matrix in shared memory: (memory, indices into it (warpgroups, rows, depth), the lane that reads each)."""
        nbytes, depth = DECODE[self.kind][0], self.depth
        lanes = g.indices().reshape(-1, WARPGROUP)[:, 0]
        offsets = np.stack([descriptor_offsets(int(d), rows, depth, nbytes, transposed) for d in descriptors])
        owners = np.repeat(lanes, rows * depth)
        view, index = locate(g, self.ins, "shared", offsets.reshape(-1), owners, nbytes, "read")
        if g.batch.watch is not None:
            swizzle = SWIZZLES[int(descriptors[0]) >> 62 & 3]
            g.batch.watch.work.arranged(g, self.ins, index * nbytes, int(lanes[0]), swizzle)
        return view, index.reshape(-1, rows, depth), owners

    def fetched(self, place: tuple[Array, Array, Array]) -> Array:
        """The elements of a matrix in shared memory, as f64."""
        return DECODE[self.kind][1](place[0][place[1]]).astype(np.float64)

    def total(self, left: Array, right: Array, old: list[Array], keep: Array) -> list[Array]:
        """The accumulators' new bits, register by register, in the layout of PTX ISA 9.7.15.5.1."""
        total = products(left * self.sign, right.transpose(0, 2, 1))
        # group, warp, row half, row, column block, column pair, column
        parts = total.reshape(-1, 4, 2, 8, self.n // 8, 4, 2)
        bits = []
        for i, before in enumerate(old):
            block, half, column = i // 4, i // 2 % 2, i % 2
            value = parts[:, :, half, :, block, :, column].reshape(-1)
            result = np.where(keep, value + before.view(np.float32), value).astype(np.float32)
            bits.append(canonical(result).view(U32))
        return bits


@opcode(
    "wgmma.mma_async",
    "sync aligned $wgmma16 f32 bf16 bf16 | sync aligned $wgmma16 f32 f16 f16 | sync aligned $wgmma8 f32 tf32 tf32",
)
def _wgmma(program: Program, ins: Instruction) -> Step:
    """wgmma.mma_async.sync.aligned.m64nNk.f32.kind.kind d, a, b, scale-d, signs, transposes."""
    shape = re.match(r"m64n(\d+)k(\d+)$", ins.names[4])
    assert shape is not None
    in_registers = isinstance(ins.operands[1], Vector)
    targets = elements(ins.operands[0])
    writes, sums = [writer(program, o) for o in targets], [bits_reader(program, o, U32) for o in targets]
    a = registers(program, ins.operands[1]) if in_registers else [bits_reader(program, ins.operands[1], UNSIGNED[64])]
    b = bits_reader(program, ins.operands[2], UNSIGNED[64])
    scale = bits_reader(program, ins.operands[3], BOOL)
    flags = [o.bits for o in ins.operands[4:] if isinstance(o, Immediate)]
    signs, transposes = flags[:2], flags[2:]
    transpose_b = bool(transposes[-1]) if transposes else False
    transpose_a = bool(transposes[0]) if len(transposes) == 2 else False
    product = WarpgroupProduct(
        ins, int(shape[1]), int(shape[2]), ins.names[6], float(np.prod([_sign(s) for s in signs]))
    )

    def multiply(g: Group) -> None:
        whole(g, ins, WARPGROUP)
        places = [product.matrix(g, _leaders(g, b), product.n, transpose_b)]
        if not in_registers:
            places.append(product.matrix(g, _leaders(g, a[0]), 64, transpose_a))
        fragment = [_register(g, read) for read in a] if in_registers else []
        old, keep = [_register(g, read) for read in sums], g.spread(scale(g))

        def compute() -> list[Array]:
            left = _left(fragment, len(keep), product.kind, product.depth) if in_registers else None
            return product.total(
                product.fetched(places[1]) if left is None else left, product.fetched(places[0]), old, keep
            )

        if g.batch.watch is not None:
            _later(g, writes, compute, places, DECODE[product.kind][0])
            return
        for write, bits in zip(writes, compute(), strict=True):
            write(g, g.spread_back(bits))

    return multiply


def _later(
    g: Group, writes: list[Write], compute: Callable[[], list[Array]], places: list[tuple[Array, Array, Array]],
    nbytes: int,
) -> None:  # fmt: skip
    """Strict mode: the registers hold arrays that are filled when the sum is there: an instruction that renames a
    register renames the sum."""
    results = [np.full(g.count, NAN, U32) for _ in writes]
    for write, later in zip(writes, results, strict=True):
        write(g, later)
    before = list(g.work_of("wgmma").work)

    def move(rows: Array) -> None:
        for earlier in before:  # they are carried out in order
            earlier.happen()
        for later, bits in zip(results, compute(), strict=True):
            later[:] = bits

    index, owners = (np.concatenate([p[i].reshape(-1) for p in places]) for i in (1, 2))
    assert g.batch.watch is not None
    g.batch.watch.work.started(g, "wgmma", "drain", index * nbytes, owners, nbytes, move)


def _leaders(g: Group, read: Read) -> Array:
    """A register's values in the first lane of each warpgroup."""
    return g.spread(read(g)).reshape(-1, WARPGROUP)[:, 0]


def _register(g: Group, read: Read) -> Array:
    """A register's values; the array itself where that may be: an earlier wgmma may still have to fill it."""
    return read(g) if g.count == g.lanes else g.spread(read(g))


def _left(fragment: list[Array], lanes: int, kind: str, depth: int) -> Array:
    """A's registers over warpgroups -> (warpgroups, 64, depth) as f64."""
    parts = np.stack([np.broadcast_to(f, (lanes,)).reshape(-1, WARPGROUP) for f in fragment], 1)
    count = len(parts)
    warps = parts.reshape(count, -1, 4, WARP).transpose(0, 2, 1, 3).reshape(count * 4, -1, WARP)
    return a_matrix(warps, kind).reshape(count, 64, depth)


def _sign(bits: int) -> int:
    return -1 if bits in (-1, 0xFFFFFFFF) else 1


@opcode("wgmma.fence", "sync aligned")
@opcode("wgmma.commit_group", "sync aligned")
@opcode("wgmma.wait_group", "sync aligned")
def _wgmma_order(program: Program, ins: Instruction) -> Step:
    """Fast mode has done a wgmma at once; strict mode does it at the wait, and holds its operands busy till then."""
    keep = ins.operands[0].bits if ins.operands and isinstance(ins.operands[0], Immediate) else 0
    action = ins.names[1]

    def order(g: Group) -> None:
        watch = g.batch.watch
        if watch is None:
            return
        if action == "fence":
            g.wgmma.fence()
        elif action == "commit_group":
            watch.work.committed(g, "wgmma")
        else:
            watch.work.waited(g, "wgmma", keep)

    return order
