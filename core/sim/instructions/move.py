"""mov, ld, st, cvta: moving bits between registers and memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.instructions.access import locate, settle
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, address_reader, bits_reader, disowning, need, reader, writer
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.effects import elements
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import SIGNED, TYPES, UNSIGNED, WIDE, Array, Type
from core.sim.ptx.state_spaces import SHARED, space_of
from core.sim.ptx.syntax import Address, Instruction, Register, Symbol, Vector
from core.sim.resident import Group

FAMILY = Family()
opcode = FAMILY.opcode

SHIFT = {8: 0, 16: 1, 32: 2, 64: 3}


@opcode("mov", "pred/$plain")
def _mov(program: Program, ins: Instruction) -> Step:
    kind = TYPES[ins.names[-1]]
    target, source = ins.operands
    if isinstance(source, Vector):
        return _pack(program, ins, kind, source)
    if isinstance(target, Vector):
        return _unpack(program, ins, kind, target)
    read, write = reader(program, source, kind), writer(program, target)
    return disowning(program, source, lambda g: write(g, read(g)))


def _pack(program: Program, ins: Instruction, kind: Type, source: Vector) -> Step:
    """mov.b64 d, {a, b}: a is the lowest part."""
    part = kind.bits // len(source.parts)
    reads = [bits_reader(program, p, UNSIGNED[part]) for p in source.parts]
    write, dtype = writer(program, ins.operands[0]), UNSIGNED[kind.bits]

    def pack(g: Group) -> None:
        value = reads[0](g).astype(dtype)
        for i, read in enumerate(reads[1:], 1):
            value = value | (read(g).astype(dtype) << dtype.type(i * part))
        write(g, value)

    return pack


def _unpack(program: Program, ins: Instruction, kind: Type, target: Vector) -> Step:
    part = kind.bits // len(target.parts)
    writes = [writer(program, p) for p in target.parts]
    read, dtype = bits_reader(program, ins.operands[1], UNSIGNED[kind.bits]), UNSIGNED[part]

    def unpack(g: Group) -> None:
        value = read(g)
        for i, write in enumerate(writes):
            write(g, (value >> value.dtype.type(i * part)).astype(dtype))

    return unpack


WINDOWS = {"shared": spaces.SHARED_WINDOW, "local": spaces.LOCAL_WINDOW}


@opcode("cvta", "to? $space u64")
def _cvta(program: Program, ins: Instruction) -> Step:
    """cvta.space a -> generic; cvta.to.space generic -> a."""
    space = space_of(ins.names)
    read, write = bits_reader(program, ins.operands[1], UNSIGNED[64]), writer(program, ins.operands[0])
    window = np.uint64(WINDOWS.get(space, 0))
    if not window:
        return disowning(program, ins.operands[1], lambda g: write(g, read(g)))
    if "to" in ins.names:
        return lambda g: write(g, read(g) - window)
    return lambda g: write(g, read(g) + window)


@opcode("isspacep", "global/local/$cluster")
def _isspacep(program: Program, ins: Instruction) -> Step:
    space = space_of(ins.names)
    read, write = bits_reader(program, ins.operands[1], SIGNED[64]), writer(program, ins.operands[0])
    number = {"shared": 1, "local": 2}.get(space, 0)
    return lambda g: write(g, (read(g) >> 40) == number)


def _form(program: Program, ins: Instruction, place: int) -> tuple[str, Type, int]:
    """(space, element type, elements) of a load or store whose address is operand `place`."""
    kind = TYPES.get(ins.names[-1])
    need(ins, kind is not None and kind.kind != "p")
    assert kind is not None
    count = next((int(n[1:]) for n in ins.names if n in ("v2", "v4", "v8")), 1)
    space = space_of(ins.names)
    address = ins.operands[place]
    assert isinstance(address, Address)
    if space == "param" and isinstance(address.base, Symbol):
        space = program.place(address.base)[0]
    need(ins, kind.bytes * count <= 16, "an access wider than 16 bytes")
    return space, kind, count


Place = tuple[Array, Array]  # memory as elements, and indices into it


def _shared_places(program: Program, ins: Instruction, operand: int, width: int, how: str) -> Callable[[Group], Place]:
    """The places of an access to shared memory, for all lanes; computed again only when the address register changes.

    Unrolled loops over a tile read it at one register plus constants: their checks are not made again at every turn.
    """
    where = address_reader(program, ins.operands[operand])
    address = ins.operands[operand]
    assert isinstance(address, Address)
    number = program.number(address.base) if isinstance(address.base, Register) else -1

    def places(g: Group) -> Place:
        base = g.registers[number] if number >= 0 else g.shared_offset
        cached = g.places.get(id(ins))
        if cached is not None and cached[0] is base:
            return cached[1], cached[2]
        view, index = locate(g, ins, "shared", g.concerned(where(g)), g.indices(), width, how)
        if number not in g.owned:  # an owned register may be changed in place
            g.places[id(ins)] = (base, view, index)
        return view, index

    return places


def _everybody(g: Group) -> bool:
    """Whether an access concerns all lanes and has no observer."""
    return g.index is None and g.picked is None and g.batch.observe is None


HINTS = "$hint? $hint2? L2::cache_hint?"  # a hint may bring an operand after all others


@opcode(
    "ld",
    f"mmio? weak/volatile/relaxed/acquire? $scope? $space? ca/cg/cs/lu/cv? nc? {HINTS} $ahead? $vector? $stored",
)
@opcode("ldu", "global? $vector? $stored")
def _ld(program: Program, ins: Instruction) -> Step:
    space, kind, count = _form(program, ins, 1)
    width = kind.bytes * count
    where = address_reader(program, ins.operands[1])
    writes = [writer(program, o) for o in elements(ins.operands[0])]
    dtype = SIGNED[kind.bits] if kind.kind == "s" else UNSIGNED[kind.bits]
    direct = space != "generic"
    space = "global" if space == "param" else space
    fast = direct and space == "global"

    shared_places = _shared_places(program, ins, 1, width, "read") if space == "shared" else None

    def fetch(g: Group, place: str, addresses: Array, lanes: Array) -> Array:
        view, index = locate(g, ins, place, addresses, lanes, width, "read")
        return view.take(index)

    def gather(g: Group) -> Array:
        if shared_places is not None and _everybody(g):
            view, index = shared_places(g)
            return view.take(index)
        addresses = g.concerned(where(g))
        lanes = ALL if fast and g.index is None and g.batch.observe is None else g.indices()
        if direct:
            return fetch(g, space, addresses, lanes)
        parts = settle(space, addresses)
        if len(parts) == 1:
            return fetch(g, parts[0][0], parts[0][1], lanes)
        raw = np.empty(len(addresses), WIDE[8 * width])
        for place, part, positions in parts:
            raw[positions] = fetch(g, place, part, lanes[positions])
        return raw

    polls = not {"acquire", "relaxed", "volatile"}.isdisjoint(ins.names)

    def load(g: Group) -> None:
        if polls:
            g.batch.polled += 1
            places = g.concerned(where(g))
            if not np.array_equal(places, g.polled.get(id(ins), ())):  # who reads elsewhere than before does not wait
                g.batch.progress += 1
                g.polled[id(ins)] = places
        raw = gather(g)
        if count == 1:
            writes[0](g, g.spread_back(raw.view(dtype)))
            return
        columns = raw.view(dtype).reshape(-1, count)
        for i, write in enumerate(writes):
            write(g, g.spread_back(np.ascontiguousarray(columns[:, i])))

    return load


class _All:
    """A substitute for every lane where positions are only needed for an error's text."""

    def __getitem__(self, place: int) -> int:
        return place


ALL: Array = _All()  # type: ignore[assignment]


@opcode("st", f"mmio? weak/volatile/relaxed/release? $scope? $space? wb/cg/cs/wt? {HINTS} $vector? $stored")
def _st(program: Program, ins: Instruction) -> Step:
    space, kind, count = _form(program, ins, 0)
    width = kind.bytes * count
    where = address_reader(program, ins.operands[0])
    reads = [bits_reader(program, o, UNSIGNED[kind.bits]) for o in elements(ins.operands[1])]

    shared_places = _shared_places(program, ins, 0, width, "write") if space == "shared" else None

    def store(g: Group) -> None:
        g.batch.progress += 1
        if count == 1:
            raw = g.spread(reads[0](g))
        else:
            columns = np.empty((g.count, count), UNSIGNED[kind.bits])
            for i, read in enumerate(reads):
                columns[:, i] = g.concerned(read(g))
            raw = columns.reshape(-1).view(WIDE[8 * width])
        if shared_places is not None and _everybody(g):
            view, index = shared_places(g)
            view[index] = raw if index.size > 1 else raw[-1]
            return
        addresses = g.concerned(where(g))
        lanes = g.indices()
        for place, part, positions in settle(space, addresses):
            own = lanes if positions is None else lanes[positions]
            view, index = locate(g, ins, place, part, own, width, "write")
            if g.batch.watch is not None:
                g.batch.watch.stored(g, ins, place, index, own, raw if positions is None else raw[positions], width)
            if index.size == 1:
                view[index] = raw[-1] if positions is None else raw[positions[-1]]
            else:
                view[index] = raw if positions is None else raw[positions]

    return store


@opcode("prefetch", "global/local? L1/L2/$hint2 | const/param? tensormap")
@opcode("prefetchu", "L1")
@opcode("applypriority", "global? L2::evict_normal")
@opcode("createpolicy", "fractional $hint2/L2::evict_unchanged $hint2/L2::evict_unchanged? b64 | cvt L2 b64")
def _nothing(program: Program, ins: Instruction) -> Step:
    """Hints to the caches."""
    if ins.names[0] == "createpolicy":
        write = writer(program, ins.operands[0])
        return lambda g: write(g, np.zeros(1, np.uint64))
    return lambda g: None


@opcode("mapa", "shared::cluster? u32/u64")
def _mapa(program: Program, ins: Instruction) -> Step:
    """The address, in a peer of the cluster, that corresponds to an own shared address."""
    kind = TYPES[ins.names[-1]]
    read = bits_reader(program, ins.operands[1], UNSIGNED[kind.bits])
    rank = bits_reader(program, ins.operands[2], UNSIGNED[32])
    write = writer(program, ins.operands[0])
    window = np.uint64(0 if any(n in SHARED for n in ins.names) else spaces.SHARED_WINDOW)
    low = np.uint64((1 << spaces.RANK_SHIFT) - 1)

    def map_address(g: Group) -> None:
        offset = read(g).astype(np.uint64) & low
        peer = (rank(g).astype(np.uint64) + np.uint64(1)) << np.uint64(spaces.RANK_SHIFT)
        write(g, (offset | peer | window).astype(UNSIGNED[kind.bits]))

    return map_address


@opcode("getctarank", "shared::cluster? u32/u64")
def _getctarank(program: Program, ins: Instruction) -> Step:
    kind = TYPES[ins.names[-1]]
    read = bits_reader(program, ins.operands[1], UNSIGNED[kind.bits])
    write = writer(program, ins.operands[0])

    def rank(g: Group) -> None:
        address = g.spread(read(g)).astype(np.int64) & spaces.WINDOW_MASK
        peer = (address >> spaces.RANK_SHIFT) - 1
        own = g.batch.numbers[g.block[g.indices()]] % g.batch.shape.cluster
        write(g, g.spread_back(np.where(peer < 0, own, peer).astype(np.uint32)))

    return rank
