"""mbarriers and cluster barriers: threads and copies arrive, phases complete, waiting threads continue."""

from __future__ import annotations

import numpy as np

from core.sim.instructions.control import condition
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, address_reader, bits_reader, need, writer
from core.sim.machine.waiting import ClusterBarrier, MBarrier, Waiting
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.block import End
from core.sim.ptx.program import GONE, Program
from core.sim.ptx.register_types import UNSIGNED, Array
from core.sim.ptx.syntax import Immediate, Instruction, Register
from core.sim.resident import Group

FAMILY = Family()
opcode, control = FAMILY.opcode, FAMILY.control

U32, U64 = UNSIGNED[32], UNSIGNED[64]
Key = tuple[int, int]  # thread block in the batch, shared address


def keys(g: Group, addresses: Array, lanes: Array) -> list[Key]:
    """The mbarrier of each address; its upper bits may name a peer of the cluster."""
    rank = (addresses >> spaces.RANK_SHIFT & 0xFF) - 1
    own = g.block[lanes]
    cluster = g.batch.shape.cluster
    block = np.where(rank < 0, own, own // cluster * cluster + rank)
    offset = addresses & ((1 << spaces.RANK_SHIFT) - 1)
    return list(zip(block.tolist(), offset.tolist(), strict=True))


def find(g: Group, ins: Instruction, key: Key, lane: int) -> MBarrier:
    if g.batch.remaining[key[0]] == 0:
        text = f"{{who}} uses an mbarrier of {g.batch.block_name(key[0])}, which has exited"
        raise g.batch.fault(
            ins, "exit in flight", text, g, lane, key[1], hint="a cluster barrier before that block's end"
        )
    barrier = g.batch.mbarriers.get(key)
    if barrier is None:
        raise g.batch.fault(
            ins, "mbarrier", "an mbarrier is used that was not initialised", g, lane, key[1],
            hint="mbarrier.init by one thread, then a barrier, before its first use",
        )  # fmt: skip
    if g.batch.watch is not None and not g.batch.watch.clocks.knows(barrier.order, g, lane):
        raise g.batch.fault(
            ins, "mbarrier", "an mbarrier is used by a thread that cannot know of its initialisation", g, lane, key[1],
            hint="fence.mbarrier_init and a barrier of the block or cluster must be between",
        )  # fmt: skip
    return barrier


def find_all(g: Group, ins: Instruction, wanted: list[Key], lanes: Array) -> list[MBarrier]:
    """find() for every lane; once for each mbarrier of a warp."""
    barriers: dict[tuple[Key, int], MBarrier] = {}
    for key, lane in zip(wanted, lanes.tolist(), strict=True):
        if (key, lane // 32) not in barriers:
            barriers[key, lane // 32] = find(g, ins, key, lane)
    return [barriers[key, warp] for key, warp in zip(wanted, (lanes // 32).tolist(), strict=True)]


def visited(g: Group, kind: str, lanes: Array, key: Key, barrier: MBarrier, complete: bool | None = None) -> None:
    """Put lanes at an mbarrier on the tape, as they leave it. complete: None where the barrier's own state has it."""
    if g.batch.tape is not None:
        over = barrier.pending == 0 and barrier.bytes_left == 0 if complete is None else complete
        came = barrier.expected - barrier.pending
        g.batch.tape.visits(kind, lanes, *key, came, barrier.expected, barrier.bytes_left, over)


@opcode("mbarrier.init", "$shared? b64")
def _init(program: Program, ins: Instruction) -> Step:
    where, count = address_reader(program, ins.operands[0]), bits_reader(program, ins.operands[1], U32)

    def init(g: Group) -> None:
        lanes = g.indices()
        counts = g.spread(count(g)).tolist()
        addresses = g.spread(where(g))
        _check_place(g, ins, addresses, lanes)
        for key, expected in zip(keys(g, addresses, lanes), counts, strict=True):
            g.batch.mbarriers[key] = MBarrier(expected, expected)
        if g.batch.watch is not None:
            for key, lane in zip(keys(g, addresses, lanes), lanes.tolist(), strict=True):
                g.batch.watch.clocks.initialised(g.batch.mbarriers[key].order, g, lane)

    return init


def _check_place(g: Group, ins: Instruction, addresses: Array, lanes: Array) -> None:
    offset = addresses & ((1 << spaces.RANK_SHIFT) - 1)
    bad = (offset % 8 != 0) | (offset < spaces.SHARED_START) | (offset + 8 > g.batch.shared_end)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise g.batch.fault(
            ins, "mbarrier", "an mbarrier needs 8 aligned bytes of shared memory", g, int(lanes[at]), int(addresses[at])
        )


@opcode("mbarrier.inval", "$shared? b64")
def _inval(program: Program, ins: Instruction) -> Step:
    where = address_reader(program, ins.operands[0])

    def invalidate(g: Group) -> None:
        lanes = g.indices()
        for key, lane in zip(keys(g, g.spread(where(g)), lanes), lanes.tolist(), strict=True):
            find(g, ins, key, lane)
            del g.batch.mbarriers[key]

    return invalidate


ARRIVE = "expect_tx? release? cta/cluster? $cluster? b64"


@opcode("mbarrier.arrive", ARRIVE)
@opcode("mbarrier.arrive_drop", ARRIVE)
@opcode("mbarrier.expect_tx", "relaxed? cta/cluster? $cluster? b64")
@opcode("mbarrier.complete_tx", "relaxed? cta/cluster? $cluster? b64")
def _arrive(program: Program, ins: Instruction) -> Step:
    """mbarrier.arrive{.expect_tx} state, [mbarrier]{, count or bytes}; the state's low bit is the phase."""
    arrives = ins.names[1] in ("arrive", "arrive_drop")
    returns = arrives and (len(ins.operands) > 1 and not _is_address(ins, 0))
    operands = ins.operands[1:] if returns else ins.operands
    where = address_reader(program, operands[0])
    amount = bits_reader(program, operands[1], U32) if len(operands) > 1 else None
    write = writer(program, ins.operands[0]) if returns and isinstance(ins.operands[0], Register) else None
    expects, drops, completes = "expect_tx" in ins.names, ins.names[1] == "arrive_drop", ins.names[1] == "complete_tx"

    def arrive(g: Group) -> None:
        lanes = g.indices()
        amounts = g.spread(amount(g)).astype(np.int64).tolist() if amount else [1] * len(lanes)
        states = np.zeros(len(lanes), np.uint64)
        for i, key in enumerate(keys(g, g.spread(where(g)), lanes)):
            barrier = find(g, ins, key, int(lanes[i]))
            states[i] = barrier.phase
            if expects:
                barrier.bytes_left += amounts[i]
            if completes:
                barrier.bytes_left -= amounts[i]
            if g.batch.watch is not None:
                g.batch.watch.leaving.arrives(g, int(lanes[i]), key[0])
                g.batch.watch.clocks.publish(barrier.order, g, lanes[i : i + 1])
            if arrives:
                arrivals = 1 if expects else amounts[i]
                if barrier.pending < arrivals:
                    raise g.batch.fault(
                        ins, "mbarrier", f"more arrivals at an mbarrier than its count of {barrier.expected}", g,
                        int(lanes[i]), key[1],
                    )  # fmt: skip
                barrier.pending -= arrivals
                barrier.expected -= arrivals if drops else 0
            visited(g, "arrive", lanes[i : i + 1], key, barrier)
            g.batch.settle_phase(barrier)
        if write is not None:
            write(g, g.spread_back(states))

    return arrive


def _is_address(ins: Instruction, place: int) -> bool:
    return type(ins.operands[place]).__name__ == "Address"


WAIT = "parity? acquire? cta/cluster? $shared? b64"


@opcode("mbarrier.test_wait", WAIT)
def _test_wait(program: Program, ins: Instruction) -> Step:
    """Never waits: whether the phase of that parity (or state) has completed."""
    where, phase = address_reader(program, ins.operands[1]), bits_reader(program, ins.operands[2], U64)
    write = writer(program, ins.operands[0])

    def test(g: Group) -> None:
        lanes = g.indices()
        parities = (g.spread(phase(g)) & np.uint64(1)).tolist()
        wanted = keys(g, g.spread(where(g)), lanes)
        barriers = find_all(g, ins, wanted, lanes)
        over = np.array([b.phase != p for b, p in zip(barriers, parities, strict=True)])
        if g.batch.tape is not None:
            for i, (key, barrier) in enumerate(zip(wanted, barriers, strict=True)):
                visited(g, "wait", lanes[i : i + 1], key, barrier, bool(over[i]))
        g.batch.polled += 0 if over.all() else 1
        if g.batch.watch is not None:
            for barrier in dict.fromkeys(barriers):
                members = over & np.array([one is barrier for one in barriers])
                g.batch.watch.clocks.learn(barrier.order, g, lanes[members])
        write(g, g.spread_back(over))

    return test


@control("mbarrier.try_wait", WAIT)
def _try_wait(program: Program, ins: Instruction, pc: int) -> End:
    """Waits until the phase completes; the hardware may return earlier with false, and is then tested again."""
    need(ins, ins.predicate is None)
    where, phase = address_reader(program, ins.operands[1]), bits_reader(program, ins.operands[2], U64)
    write = writer(program, ins.operands[0])
    need(ins, not isinstance(ins.operands[0], Immediate))

    def wait(g: Group) -> int:
        lanes = g.indices()
        parities = (g.spread(phase(g)) & np.uint64(1)).tolist()
        write(g, np.ones(1, np.bool_))
        parked: dict[Key, list[int]] = {}
        wanted = keys(g, g.spread(where(g)), lanes)
        learnt: dict[MBarrier, list[int]] = {}
        for i, (key, barrier) in enumerate(zip(wanted, find_all(g, ins, wanted, lanes), strict=True)):
            visited(g, "wait", lanes[i : i + 1], key, barrier, barrier.phase != parities[i])
            if barrier.phase == parities[i]:
                parked.setdefault(key, []).append(int(lanes[i]))
            else:
                learnt.setdefault(barrier, []).append(int(lanes[i]))
        if g.batch.watch is not None:
            for barrier, those in learnt.items():
                g.batch.watch.clocks.learn(barrier.order, g, np.array(those))
        if not parked:
            return pc + 1
        free = g.active()
        for key, members in parked.items():
            index = np.array(members)
            free[index] = False
            g.batch.mbarriers[key].waiting.append(Waiting(g, index, pc + 1))
            g.waiting += len(members)
        if free.any():
            g.queue(pc + 1, free)
        return GONE

    return wait


# --------------------------------------------------------------------------- clusters
@opcode("barrier.cluster.arrive", "release/relaxed? aligned?")
def _cluster_arrive(program: Program, ins: Instruction) -> Step:
    def arrive(g: Group) -> None:
        lanes = g.indices()
        clusters = g.block[lanes] // g.batch.shape.cluster
        if g.cluster_phase is None:
            g.cluster_phase = np.full(g.lanes, -1)
        for number in np.unique(clusters).tolist():
            barrier = g.batch.cluster_barriers.setdefault(number, ClusterBarrier())
            members = lanes[clusters == number]
            g.cluster_phase[members] = barrier.phase
            barrier.arrived += len(members)
            if g.batch.watch is not None:
                g.batch.watch.clocks.publish(barrier.order, g, members, "relaxed" in ins.names)
            if g.batch.tape is not None:
                first = number * g.batch.shape.cluster
                everybody = int(g.batch.remaining[first : first + g.batch.shape.cluster].sum())
                g.batch.tape.visits(
                    "cluster", members, first, 0, barrier.arrived, everybody, complete=barrier.arrived >= everybody
                )
            g.batch.settle_cluster(number)

    return arrive


@control("barrier.cluster.wait", "acquire? aligned?")
def _cluster_wait(program: Program, ins: Instruction, pc: int) -> End:
    guard = condition(program, ins) if ins.predicate is not None else None
    need(ins, guard is None)

    def wait(g: Group) -> int:
        lanes = g.indices()
        if g.cluster_phase is None or (g.cluster_phase[lanes] < 0).any():
            raise g.batch.fault(ins, "cluster barrier", "a wait without an arrive before it", g, int(lanes[0]))
        clusters = g.block[lanes] // g.batch.shape.cluster
        phases = np.array([g.batch.cluster_barriers[c].phase for c in clusters.tolist()])
        late = g.cluster_phase[lanes] >= phases
        if g.batch.watch is not None:
            for number in np.unique(clusters[~late]).tolist():
                barrier = g.batch.cluster_barriers[number]
                g.batch.watch.clocks.learn(barrier.order, g, lanes[~late & (clusters == number)])
        if not late.any():
            return pc + 1
        for number in np.unique(clusters[late]).tolist():
            index = lanes[late & (clusters == number)]
            g.batch.cluster_barriers[number].waiting.append(Waiting(g, index, pc + 1))
            g.waiting += len(index)
        free = g.active()
        free[lanes[late]] = False
        if free.any():
            g.queue(pc + 1, free)
        return GONE

    return wait
