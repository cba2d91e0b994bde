"""Instructions of a whole warp: shuffles, votes, match, reductions, elect, and the barriers of warp and block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.instructions.control import condition
from core.sim.instructions.membermasks import check_members, check_named, of_lanes
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, bits_reader, need, writer
from core.sim.machine.geometry import WARP
from core.sim.machine.waiting import Reduction
from core.sim.machine.warps import EVERYBODY, U32, Meeting, named, shuffled_from, warp_words
from core.sim.ptx.block import End
from core.sim.ptx.program import GONE, Program
from core.sim.ptx.register_types import BOOL, SIGNED, UNSIGNED, Array
from core.sim.ptx.syntax import Instruction, Operand, Pair
from core.sim.resident import Group

FAMILY = Family()
opcode, control = FAMILY.opcode, FAMILY.control


def over_lanes(g: Group, value: Array) -> Array:
    """A reader's value laid out over all lanes of the group; lanes not concerned hold zero or garbage."""
    if value.size == g.lanes and g.picked is None:
        return value
    if g.picked is None:
        return np.broadcast_to(value, (g.lanes,))
    full = np.zeros(g.lanes, value.dtype)
    full[g.picked] = value
    return full


def back(g: Group, full: Array) -> Array:
    """A value over all lanes, in the form that a writer takes."""
    return full if g.picked is None else full[g.picked]


def _checked(program: Program, ins: Instruction, operand: Operand) -> Callable[[Group], None]:
    read = bits_reader(program, operand, U32)

    def check(g: Group) -> None:
        masks = read(g)
        if masks.size == 1 and masks[0] == EVERYBODY and _whole_warps(g):
            return
        check_members(g, ins, g.spread(masks))

    return check


@opcode("shfl", "sync up/down/bfly/idx b32")
def _shfl(program: Program, ins: Instruction) -> Step:
    """shfl.sync.mode.b32 d|p, a, b, c, membermask: PTX ISA's pseudo-code, for all warps at once."""
    mode, target = ins.names[2], ins.operands[0]
    write = writer(program, target.first if isinstance(target, Pair) else target)
    inside = writer(program, target.second) if isinstance(target, Pair) else None
    value, b, c = (bits_reader(program, o, U32) for o in ins.operands[1:4])
    check, masks = _checked(program, ins, ins.operands[4]), bits_reader(program, ins.operands[4], U32)
    sources: dict[tuple[int, int, int], tuple[Array, Array]] = {}

    def shuffle(g: Group) -> None:
        check(g)
        offset, clamp = b(g), c(g)
        if offset.size == 1 and clamp.size == 1:
            key = (g.lanes, int(offset[0]), int(clamp[0]))
            if key not in sources:
                sources[key] = shuffled_from(mode, g.lanes, offset, clamp)
            place, good = sources[key]
        else:
            place, good = shuffled_from(mode, g.lanes, over_lanes(g, offset), over_lanes(g, clamp))
        values = value(g)
        if values.size == 1 and g.picked is None:
            write(g, values.copy())
        else:
            write(g, back(g, over_lanes(g, values)[place]))
        if inside is not None:
            inside(g, back(g, good))
        if g.batch.watch is not None:
            g.batch.watch.undefined.shuffled(g, ins, place, good, g.spread(masks(g)))

    return shuffle


def ballots(g: Group, holds: Array) -> Array:
    """Per lane, the bits of its warp's concerned lanes for which a predicate holds."""
    return np.repeat(warp_words(over_lanes(g, holds) & g.active()), WARP)


@opcode("vote", "sync all/any/uni pred | sync ballot b32")
def _vote(program: Program, ins: Instruction) -> Step:
    mode = ins.names[2]
    holds, mask = bits_reader(program, ins.operands[1], BOOL), bits_reader(program, ins.operands[2], U32)
    check, write = _checked(program, ins, ins.operands[2]), writer(program, ins.operands[0])

    def vote(g: Group) -> None:
        check(g)
        members = over_lanes(g, mask(g))
        yes = ballots(g, holds(g)) & members
        present = ballots(g, np.ones(1, np.bool_)) & members
        result = {"ballot": yes, "any": yes != 0, "all": yes == present, "uni": (yes == 0) | (yes == present)}[mode]
        write(g, back(g, result))

    return vote


@opcode("activemask", "b32")
def _activemask(program: Program, ins: Instruction) -> Step:
    write = writer(program, ins.operands[0])
    return lambda g: write(g, back(g, ballots(g, np.ones(1, np.bool_))))


@opcode("match", "any/all sync b32/b64")
def _match(program: Program, ins: Instruction) -> Step:
    """match.any: the lanes with the same value; match.all: all members, if all values agree."""
    kind = UNSIGNED[int(ins.names[-1][1:])]
    value, mask = bits_reader(program, ins.operands[1], kind), bits_reader(program, ins.operands[2], U32)
    target = ins.operands[0]
    write = writer(program, target.first if isinstance(target, Pair) else target)
    agreed = writer(program, target.second) if isinstance(target, Pair) else None
    check, every = _checked(program, ins, ins.operands[2]), ins.names[1] == "all"

    def match(g: Group) -> None:
        check(g)
        full = over_lanes(g, value(g)).reshape(-1, WARP)
        members = over_lanes(g, mask(g)) & ballots(g, np.ones(1, np.bool_))
        equal = full[:, :, None] == full[:, None, :]
        words = np.packbits(equal, axis=2, bitorder="little").view(np.uint32).reshape(-1)
        same = words & members
        if every:
            together = same == members
            write(g, back(g, np.where(together, members, np.uint32(0))))
            if agreed is not None:
                agreed(g, back(g, together))
        else:
            write(g, back(g, same))

    return match


REDUCE: dict[str, np.ufunc] = {
    "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}  # fmt: skip


@opcode("redux", "sync add/min/max u32/s32 | sync and/or/xor b32")
def _redux(program: Program, ins: Instruction) -> Step:
    """redux.sync.op.type d, a, membermask: over the lanes that each lane's mask names."""
    function = REDUCE[ins.names[2]]
    kind = SIGNED[32] if ins.names[-1] == "s32" else U32
    value, mask = bits_reader(program, ins.operands[1], kind), bits_reader(program, ins.operands[2], U32)
    check, write = _checked(program, ins, ins.operands[2]), writer(program, ins.operands[0])
    limits = np.iinfo(kind)
    neutral = {"add": 0, "or": 0, "xor": 0, "and": -1, "min": limits.max, "max": limits.min}[ins.names[2]]

    def reduce(g: Group) -> None:
        check(g)
        masks = of_lanes(g, g.spread(mask(g)))
        sets = masks.max(1, keepdims=True)  # one set of lanes in each warp, or as many as it has masks
        if ((masks != sets) & (masks != 0)).any():
            sets = masks
        in_it = named(sets) & g.active().reshape(-1, 1, WARP)
        full = over_lanes(g, value(g)).reshape(-1, 1, WARP)
        result = function.reduce(np.where(in_it, full, np.array(neutral).astype(kind)), axis=2)
        write(g, back(g, np.broadcast_to(result, masks.shape).reshape(-1).astype(kind)))

    return reduce


@opcode("elect", "sync")
def _elect(program: Program, ins: Instruction) -> Step:
    """elect.sync d|p, membermask: the lowest member is the leader."""
    target = ins.operands[0]
    need(ins, isinstance(target, Pair))
    assert isinstance(target, Pair)
    leader, chosen = writer(program, target.first), writer(program, target.second)
    mask, check = bits_reader(program, ins.operands[1], U32), _checked(program, ins, ins.operands[1])

    def elect(g: Group) -> None:
        check(g)
        members = over_lanes(g, mask(g)) & ballots(g, np.ones(1, np.bool_))
        lowest = np.bitwise_count((members & (~members + np.uint32(1))) - np.uint32(1)).astype(np.uint32)
        leader(g, back(g, lowest))
        chosen(g, back(g, lowest == np.arange(g.lanes, dtype=np.uint32) % WARP))

    return elect


@control("bar.warp", "sync")
def _warp_barrier(program: Program, ins: Instruction, pc: int) -> End:
    """bar.warp.sync membermask: waits until the lanes named have come to one, here or elsewhere, with the same mask."""
    read = bits_reader(program, ins.operands[0], U32)
    guard = condition(program, ins) if ins.predicate is not None else None

    def barrier(g: Group) -> int:
        if guard is not None and not _guarded(g, guard(g), pc):
            return GONE
        masks = g.spread(read(g))
        if (masks == EVERYBODY).all() and _whole_warps(g):
            g.met()
        else:
            check_named(g, ins, of_lanes(g, masks))
            g.meeting = g.meeting or Meeting(g.lanes)
            g.meeting.come(g.indices(), masks, pc + 1)
            g.go_on()
            return GONE
        if guard is None:
            return pc + 1
        g.queue(pc + 1, g.active())
        return GONE

    return barrier


def _whole_warps(g: Group) -> bool:
    """Whether each warp is here with all its live lanes, or not at all."""
    if g.index is None or g.count == g.live_count:
        return True
    here, live = warp_words(g.active()), warp_words(g.live)
    return bool(((here == live) | (here == 0)).all())


def _guarded(g: Group, holds: Array, pc: int) -> bool:
    """Part the lanes for which a control instruction's predicate does not hold; whether any are left."""
    chosen = g.spread(holds)
    others = np.zeros(g.lanes, np.bool_)
    others[g.indices()[~chosen]] = True
    if others.any():
        g.queue(pc + 1, others)
        taken = np.zeros(g.lanes, np.bool_)
        taken[g.indices()[chosen]] = True
        if not taken.any():
            return False
        g.select(taken)
    return True


@control("bar", "cta? sync/arrive | cta? red popc u32 | cta? red and/or pred")
@control("barrier", "cta? sync/arrive aligned? | cta? red popc aligned? u32 | cta? red and/or aligned? pred")
def _barrier(program: Program, ins: Instruction, pc: int) -> End:
    """bar.sync a{, b}: barrier a of the thread block, for b threads (all that have not exited without b)."""
    reducing, waits = "red" in ins.names, "arrive" not in ins.names
    operands = ins.operands[1:] if reducing else ins.operands
    number = bits_reader(program, operands[0], U32)
    sized = len(operands) > (2 if reducing else 1)
    count = bits_reader(program, operands[1], U32) if sized else None
    holds = bits_reader(program, operands[-1], BOOL) if reducing else None
    guard = condition(program, ins) if ins.predicate is not None else None
    write = writer(program, ins.operands[0]) if reducing else None
    form = next((name for name in ins.names if name in ("popc", "and", "or")), "")
    need(ins, not reducing or (guard is None and not sized), "a reduction over part of a thread block")

    def barrier(g: Group) -> int:
        if guard is not None and not _guarded(g, guard(g), pc):
            return GONE
        reduction = None
        if holds is not None and write is not None:
            yes = np.zeros(g.lanes, np.bool_)
            yes[g.indices()] = g.spread(holds(g))
            reduction = Reduction(form, yes, write)
        names = g.concerned(number(g))
        need_count = None if count is None else int(g.concerned(count(g))[0])
        if (names == names[0]).all():
            straight = g.batch.arrive(g, ins, int(names[0]), need_count, pc + 1, waits, reduction)
            if straight or not waits:
                if guard is None:
                    return pc + 1
                g.queue(pc + 1, g.active())
            return GONE
        lanes = g.indices()
        for name in np.unique(names):
            part = np.zeros(g.lanes, np.bool_)
            part[lanes[names == name]] = True
            g.select(part)
            if g.batch.arrive(g, ins, int(name), need_count, pc + 1, waits, reduction) or not waits:
                g.queue(pc + 1, part)
        return GONE

    return barrier
