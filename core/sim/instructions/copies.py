"""Asynchronous copies: cp.async of Ampere, bulk and tensor copies of Hopper, reductions among them.

Each is decoded and checked when it is issued, and moves its bytes by a function of its own: at once in fast mode, which
is one of the legal times; at a time of its own in strict mode (inflight.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np

from core.sim.instructions.access import locate
from core.sim.instructions.atomics import change_of, in_turn
from core.sim.instructions.float_formats import FORMATS
from core.sim.instructions.mbarrier import find, find_all, keys, visited
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Read, Step, address_reader, bits_reader, need
from core.sim.instructions.tensormap import BYTES, BoxMap, decode
from core.sim.machine.waiting import MBarrier
from core.sim.ptx.effects import elements
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import BOOL, SIGNED, TYPES, UNSIGNED, Array
from core.sim.ptx.syntax import Address, Immediate, Instruction
from core.sim.resident import Group

FAMILY = Family()
opcode = FAMILY.opcode

U32, U64 = UNSIGNED[32], UNSIGNED[64]
TENSOR_ALIGN = 128  # bytes, of a tensor copy's place in shared memory


@opcode("cp.async", "ca/cg $shared global $ahead?")
def _cp_async(program: Program, ins: Instruction) -> Step:
    """cp.async.{ca,cg}.shared.global [dst], [src], bytes{, bytes that are read; the rest is zero}."""
    to, of = address_reader(program, ins.operands[0]), address_reader(program, ins.operands[1])
    size = ins.operands[2]
    need(ins, isinstance(size, Immediate) and size.bits in (4, 8, 16))
    assert isinstance(size, Immediate)
    width, kind = size.bits, None
    limit = bits_reader(program, ins.operands[3], U32) if len(ins.operands) > 3 else None
    if limit is not None and ins.operands[3].__class__.__name__ == "Register":
        kind = program.kind(ins.operands[3])  # type: ignore[arg-type]
    ignore = bits_reader(program, ins.operands[3], BOOL) if kind is not None and kind.kind == "p" else None

    def copy(g: Group) -> None:
        lanes = g.indices()
        target, index = locate(g, ins, "shared", g.spread(to(g)), lanes, width, "write")
        read = np.full(g.count, width)
        if ignore is not None:
            read = np.where(g.spread(ignore(g)), 0, width)
        elif limit is not None:
            read = np.minimum(g.spread(limit(g)).astype(np.int64), width)
        some = np.flatnonzero(read > 0)
        view, place = target, np.zeros(g.count, np.int64)
        if some.size:
            view, place[some] = locate(g, ins, "global", g.spread(of(g))[some], lanes[some], width, "read")

        def move(rows: Array) -> None:
            data = np.ascontiguousarray(view.take(place[rows])).view(np.uint8).reshape(-1, width)
            data[np.arange(width)[None] >= read[rows, None]] = 0
            target[index[rows]] = data.reshape(-1).view(target.dtype)

        if g.batch.watch is None:
            move(np.arange(g.count))
        else:
            g.batch.watch.work.started(g, "copy", "fill", index * width, lanes, width, move)

    return copy


@opcode("cp.async.commit_group", "")
@opcode("cp.async.wait_group", "")
@opcode("cp.async.wait_all", "")
@opcode("cp.async.bulk.commit_group", "")
@opcode("cp.async.bulk.wait_group", "read?")
@opcode("cp.async.bulk.prefetch", "L2 global L2::cache_hint? | tensor $rank L2 global tile? L2::cache_hint?")
def _in_order(program: Program, ins: Instruction) -> Step:
    name = "bulk" if "bulk" in ins.names else "copy"
    keep = ins.operands[0].bits if ins.operands and isinstance(ins.operands[0], Immediate) else 0
    commits, everything = "commit_group" in ins.names, "wait_all" in ins.names
    # A bulk store has two ends: its source may be used again after .read; its target is written later.
    lines = (name,) if name == "copy" or "read" in ins.names else (name, "store")

    def order(g: Group) -> None:
        if g.batch.watch is None or "prefetch" in ins.names:
            return
        for line in lines:
            if commits:
                g.batch.watch.work.committed(g, line)
            else:
                g.batch.watch.work.waited(g, line, keep, everything)

    return order


@opcode("cp.async.mbarrier", "arrive noinc? $shared? b64")
def _cp_async_arrive(program: Program, ins: Instruction) -> Step:
    """cp.async.mbarrier.arrive{.noinc}: arrives when the thread's copies have landed."""
    where, counts = address_reader(program, ins.operands[0]), "noinc" in ins.names

    def arrive(g: Group) -> None:
        lanes = g.indices()
        wanted = keys(g, g.spread(where(g)), lanes)
        every = find_all(g, ins, wanted, lanes)
        for barrier in dict.fromkeys(every):
            members = lanes[[one is barrier for one in every]]
            barrier.pending += 0 if counts else len(members)
            visited(g, "arrive", members, next(k for k, b in zip(wanted, every, strict=True) if b is barrier), barrier)
            landed = functools.partial(_arrived, g, barrier, len(members))
            if g.batch.watch is None:
                landed()
            else:
                g.batch.watch.work.arriving(g, members, barrier.order, landed)

    return arrive


def _arrived(g: Group, barrier: MBarrier, count: int) -> None:
    barrier.pending -= count
    g.batch.settle_phase(barrier)


# --------------------------------------------------------------------------- bulk copies
def _raw(g: Group, ins: Instruction, space: str, start: int, nbytes: int, lane: int, how: str) -> Array:
    """`nbytes` bytes of a space, as a view that can be written."""
    starts = np.arange(start, start + nbytes, 16)
    view, index = locate(g, ins, space, starts, np.full(len(starts), lane), 16, how)
    first = int(index[0])
    return view[first : first + nbytes // 16].view(np.uint8)


@opcode(
    "cp.async.bulk",
    "shared::cta/shared::cluster global mbarrier::complete_tx::bytes multicast::cluster? L2::cache_hint?"
    " | shared::cluster shared::cta mbarrier::complete_tx::bytes | global shared::cta bulk_group L2::cache_hint?",
)
@opcode(
    "cp.reduce.async.bulk",
    "shared::cluster shared::cta mbarrier::complete_tx::bytes $reduce $stored"
    " | global shared::cta bulk_group L2::cache_hint? $reduce noftz? $stored/f16/bf16",
)
def _bulk(program: Program, ins: Instruction) -> Step:
    """cp.async.bulk.dst.src{.mbarrier...} [dst], [src], bytes{, [mbarrier]}{, mask}; 16-byte multiples."""
    spaces = [n.partition(":")[0] for n in ins.names if n.partition(":")[0] in ("shared", "global")][:2]
    need(ins, len(spaces) == 2)
    to, of = address_reader(program, ins.operands[0]), address_reader(program, ins.operands[1])
    size = bits_reader(program, ins.operands[2], U32)
    barrier = address_reader(program, ins.operands[3]) if spaces[0] == "shared" else None
    mask = _multicast(program, ins, 4)
    change = change_of(ins) if ins.names[1] == "reduce" else None
    kind = UNSIGNED[TYPES[ins.names[-1]].bits if change else 8]
    how = "atomic" if change else "write"

    def put(there: Array, data: Array) -> None:
        there[:] = change(there.copy().view(kind), data.view(kind)).view(np.uint8) if change else data

    def copy(g: Group) -> None:
        for i, lane in enumerate(g.indices().tolist()):
            target, source, count = (int(g.spread(read(g))[i]) for read in (to, of, size))
            if target % 16 or source % 16 or count % 16:
                raise g.batch.fault(ins, "misaligned", "a bulk copy needs multiples of 16 bytes", g, lane, target)
            data = _raw(g, ins, spaces[1], source, count, lane, "read")
            if barrier is None:
                there = _raw(g, ins, "global", target, count, lane, how)
                reads, writes = _positions(g, source, lane, count), np.arange(target, target + count, 16)
                _out(g, lane, (reads, 16), (writes, 16), data.copy, functools.partial(put, there))
                continue
            for peer in _peers(g, mask, i, lane, target, spaces[0]):
                there = _raw(g, ins, spaces[0], peer, count, lane, how)
                move = functools.partial(put, there, data)
                own = _positions(g, peer, lane, count)
                _land(g, ins, int(g.spread(barrier(g))[i]), peer, target, lane, count, own, -1, move)

    return copy


def _out(
    g: Group, lane: int, reads: tuple[Array, int], writes: tuple[Array, int],
    take: Callable[[], Array], put: Callable[[Array], None],
) -> None:  # fmt: skip
    """A copy out of shared memory. reads, writes: byte positions and the width at each; take, put: its two halves."""
    watch = g.batch.watch
    if watch is None:
        put(take())
        return
    taken: list[Array] = []

    def owners(index: Array) -> Array:
        return np.full(len(index), lane)

    def drain(rows: Array) -> None:
        if not taken:
            taken.append(take())

    def write(rows: Array) -> None:
        read.happen()
        if taken:
            put(taken.pop())

    read = watch.work.started(g, "bulk", "drain", reads[0], owners(reads[0]), reads[1], drain)
    watch.work.started(g, "store", "write", writes[0], owners(writes[0]), writes[1], write)


def _positions(g: Group, address: int, lane: int, count: int) -> Array:
    """Offsets of `count` bytes from a shared address in the batch's shared memory, every 16th."""
    ((block, offset),) = keys(g, np.array([address]), np.array([lane]))
    return block * g.batch.stride + offset + np.arange(0, count, 16)


def _multicast(program: Program, ins: Instruction, place: int) -> Read | None:
    return bits_reader(program, ins.operands[place], UNSIGNED[16]) if "multicast:cluster" in ins.names else None


def _peers(g: Group, mask: Read | None, i: int, lane: int, target: int, space: str) -> list[int]:
    """The addresses that a copy writes: its own, or the same place in every thread block of the mask."""
    if mask is None or space != "shared":
        return [target]
    chosen = int(g.spread(mask(g))[i])
    return [target & 0xFFFFFF | (rank + 1) << 24 for rank in range(16) if chosen >> rank & 1]


def _land(
    g: Group,
    ins: Instruction,
    barrier: int,
    peer: int,
    target: int,
    lane: int,
    count: int,
    index: Array,
    swizzle: int,
    move: Callable[[], None],
) -> None:
    """A copy in: when its bytes are there, its mbarrier, in the thread block that was written, counts them."""
    address = barrier if peer == target else (barrier & 0xFFFFFF) | (peer & ~0xFFFFFF)
    (key,) = keys(g, np.array([address]), np.array([lane]))
    mbarrier = find(g, ins, key, lane)
    visited(g, "copy", np.array([lane]), key, mbarrier)

    def land() -> None:
        move()
        g.batch.landed(mbarrier, count)

    if g.batch.watch is None:
        land()
    else:
        g.batch.watch.work.landing(g, lane, index, mbarrier.order, swizzle, key[0], land)


@opcode("st.async", "weak? $cluster mbarrier::complete_tx::bytes $vector? b32/b64/u32/u64/s32/s64/f32/f64")
def _st_async(program: Program, ins: Instruction) -> Step:
    """st.async [dst], value, [mbarrier]: a store into a thread block of the cluster, counted by an mbarrier there."""
    kind, parts = TYPES[ins.names[-1]], elements(ins.operands[1])
    to, barrier = address_reader(program, ins.operands[0]), address_reader(program, ins.operands[2])
    values = [bits_reader(program, part, UNSIGNED[kind.bits]) for part in parts]
    width = kind.bytes * len(parts)

    def store(g: Group) -> None:
        g.batch.progress += 1
        lanes, targets, bars = g.indices(), g.spread(to(g)), g.spread(barrier(g))
        columns = np.stack([g.spread(value(g)) for value in values], 1)
        for i, lane in enumerate(lanes.tolist()):
            view, index = locate(g, ins, "shared", targets[i : i + 1], lanes[i : i + 1], width, "write")
            data = np.ascontiguousarray(columns[i]).view(view.dtype)
            move = functools.partial(view.__setitem__, index, data)
            target = int(targets[i])
            _land(g, ins, int(bars[i]), target, target, lane, width, index * width, -1, move)

    return store


def _map(g: Group, ins: Instruction, address: int, lane: int) -> BoxMap:
    if address % 64:
        raise g.batch.fault(ins, "misaligned", "a tensor map is aligned to 64 bytes", g, lane, address)
    raw = _raw(g, ins, "global", address, BYTES, lane, "read").tobytes()
    decoded = decode(raw)
    if decoded is None:
        raise g.batch.fault(ins, "tensor map", "there is no tensor map at this address", g, lane, address)
    return decoded


@opcode(
    "cp.async.bulk.tensor",
    "$rank shared::cta/shared::cluster global tile? mbarrier::complete_tx::bytes multicast::cluster? L2::cache_hint?"
    " | $rank global shared::cta tile? bulk_group L2::cache_hint?",
)
@opcode("cp.reduce.async.bulk.tensor", "$rank global shared::cta $reduce tile? bulk_group L2::cache_hint?")
def _bulk_tensor(program: Program, ins: Instruction) -> Step:
    """Tensor copies of rank 1 to 5: [dst], [map, {coordinates}], [mbarrier] in; [map, {coordinates}], [src] out."""
    loads = not isinstance(ins.operands[0], Address) or ins.operands[0].coordinates is None
    tensor = ins.operands[1] if loads else ins.operands[0]
    assert isinstance(tensor, Address) and tensor.coordinates is not None
    base = bits_reader(program, tensor.base, SIGNED[64])
    coordinates = [bits_reader(program, o, SIGNED[32]) for o in elements(tensor.coordinates)]
    shared = address_reader(program, ins.operands[0] if loads else ins.operands[1])
    barrier = address_reader(program, ins.operands[2]) if loads else None
    mask = _multicast(program, ins, 3)
    operation = next((n for n in ins.names if n in ("add", "min", "max", "and", "or", "xor", "inc", "dec")), "")

    def copy(g: Group) -> None:
        for i, lane in enumerate(g.indices().tolist()):
            m = _map(g, ins, int(g.spread(base(g))[i]) + tensor.offset, lane)
            at = [int(g.spread(c(g))[i]) for c in coordinates]
            place = int(g.spread(shared(g))[i])
            _check(g, ins, m, at, place, lane)
            addresses, inside = m.addresses(at)
            if barrier is None:
                _store_box(g, ins, m, addresses, inside, place, lane, operation)
            else:
                peers = _peers(g, mask, i, lane, place, "shared")
                _load_box(g, ins, m, addresses, inside, place, lane, peers, int(g.spread(barrier(g))[i]))

    return copy


def _load_box(
    g: Group, ins: Instruction, m: BoxMap, addresses: Array, inside: Array, place: int, lane: int,
    peers: Iterable[int], bar: int,
) -> None:  # fmt: skip
    """A box of global memory into shared memory at `place` of each peer, with zeros outside of the tensor."""
    source, where = g.batch.memory.view(m.itemsize), np.zeros(0, np.int64)
    if inside.any():
        lanes = np.full(int(inside.sum()), lane)
        source, where = locate(g, ins, "global", addresses[inside], lanes, m.itemsize, "read")
    for peer in peers:
        offsets = m.offsets(place & 0xFFFFFF) | (peer & ~0xFFFFFF)
        view, index = locate(g, ins, "shared", offsets, np.full(len(offsets), lane), m.itemsize, "write")

        def move(view: Array = view, index: Array = index) -> None:
            view[index] = 0
            view[index[inside]] = source[where]

        _land(g, ins, bar, peer, place, lane, m.nbytes, index * m.itemsize, m.swizzle, move)


def _store_box(
    g: Group, ins: Instruction, m: BoxMap, addresses: Array, inside: Array, place: int, lane: int, operation: str
) -> None:
    """A box of shared memory into global memory, as far as it is inside of the tensor; operation: of a reduction."""
    offsets = m.offsets(place)[inside]
    lanes = np.full(len(offsets), lane)
    if not len(offsets):
        return
    view, index = locate(g, ins, "shared", offsets, lanes, m.itemsize, "read")
    to = addresses[inside]
    target, where = locate(g, ins, "global", to, lanes, m.itemsize, "atomic" if operation else "write")

    def put(data: Array) -> None:
        if operation:
            kind = TYPES[m.kind if m.kind in FORMATS else m.kind.replace("i", "s")]
            in_turn(target, where, data, data, change_of(ins, operation, kind))
        else:
            target[where] = data

    reads, writes = (index * m.itemsize, m.itemsize), (to, m.itemsize)
    _out(g, lane, reads, writes, lambda: view[index], put)


def _check(g: Group, ins: Instruction, m: BoxMap, at: list[int], place: int, lane: int) -> None:
    """The hardware's requirements on a tensor copy.

    Shared memory is aligned to 128 bytes, for every swizzle: CUDA C++ Programming Guide, "The Swizzle Modes", Table 12
    (Programming Guide 13, 4.11, Table 25). The patterns of 128, 64 and 32 repeat after 1,024, 512 and 256 bytes;
    they follow the absolute address (Table 11: offset = (smem_ptr / 128) % 8), as `swizzled` does.
    """
    problems = {
        f"a copy of rank {len(at)} with a map of rank {len(m.dims)}": len(at) != len(m.dims),
        f"the shared address must be a multiple of {TENSOR_ALIGN} bytes": (place & 0xFFFFFF) % TENSOR_ALIGN != 0,
        f"a box row of {m.box[0] * m.itemsize} bytes under a swizzle of {m.swizzle}": (
            m.swizzle > 0 and m.box[0] * m.itemsize > m.swizzle
        ),
    }
    violated = [text for text, bad in problems.items() if bad]
    if violated:
        raise g.batch.fault(ins, "tensor map", "; ".join(violated), g, lane, place)
