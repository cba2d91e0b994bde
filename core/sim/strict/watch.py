"""Strict mode: reports faults that a chip lets pass, or that show only now and then.

Every access to shared and global memory is compared with those before it. Two accesses to one place, at least one
of them a write, must be ordered by a barrier, an mbarrier or a fence with a flag; else they are a race, whether or not
this run's schedule shows it. Shared memory starts unwritten; reading it then is an error too.

Its rooms: clocks.py (happens-before), shadow.py and reader_stamps.py (last accesses), races.py, barriers.py (of a
thread block), underway.py (asynchronous work), preceding.py (the kernel in front), leaving.py (exits),
advice.py (hints).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.faults import FaultAccess, Finding, KernelError
from core.sim.machine.address_space import Region
from core.sim.machine.lanes import Lanes, Origin
from core.sim.machine.resident_blocks import ResidentBlocks, fault_access
from core.sim.machine.waiting import Barrier
from core.sim.ptx import state_spaces as spaces
from core.sim.ptx.address_roots import Root, first_guesses, read_roots, stored
from core.sim.ptx.cuda_source import Sources
from core.sim.ptx.program import Program, per_program
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction
from core.sim.strict.advice import OWNER, hint
from core.sim.strict.barriers import Meetings
from core.sim.strict.clocks import WARP, Accessors, Clocks
from core.sim.strict.leaving import Leaving
from core.sim.strict.preceding import Preceding
from core.sim.strict.races import STRONG, VOLATILE, WEAK, At, Other, Races
from core.sim.strict.shadow import Global, Shadow, grain
from core.sim.strict.undefined import LOADS, Undefined
from core.sim.strict.underway import UnderWay

POISON = 0xFF  # shared memory before it is written: NaN in every float format


def strength(ins: Instruction) -> int:
    """The strength of an access that may meet others of its kind without an order: atomics, relaxed loads and their
    like."""
    if ins.names[0] in ("atom", "red") or ins.names[:2] == ("cp", "reduce"):
        return STRONG
    if not {"relaxed", "acquire", "release", "acq_rel", "mmio"}.isdisjoint(ins.names):
        return STRONG
    return VOLATILE if "volatile" in ins.names else WEAK


def is_async(ins: Instruction) -> bool:
    """Whether an instruction's accesses go through the async proxy."""
    return ins.names[0] == "wgmma" or "bulk" in ins.names


@per_program
def works_later(program: Program) -> bool:
    """Whether a kernel has asynchronous work."""
    return any(is_async(i) or i.names[:2] in (("cp", "async"), ("st", "async")) for i in program.instructions)


@per_program
def traits(program: Program) -> dict[int, tuple[int, int, bool]]:
    """An instruction's id -> (its number, strength, whether it is by the async proxy)."""
    guesses = first_guesses(program)
    return {
        id(ins): (number, STRONG if id(ins) in guesses else strength(ins), is_async(ins))
        for number, ins in enumerate(program.instructions)
    }


def zones(program: Program, shared_end: int, grain: int) -> Array | None:
    """By grain of a thread block's shared memory, whether it belongs to no variable; None where there is one
    variable."""
    own = np.ones(-(-shared_end // 128) * 128 // grain, np.bool_)
    own[: spaces.SHARED_START // grain] = False
    variables = [(name, at) for name, (space, at) in program.places.items() if space == "shared"]
    if len(variables) < 2:
        return None
    for name, at in variables:
        end = at + program.sizes[name] if program.sizes.get(name) else shared_end
        own[at // grain : -(-end // grain)] = False
    return own


class Watch:
    """Watches one batch of thread blocks. `memory`: the shadow of global memory, shared by the batches of a launch."""

    def __init__(self, batch: ResidentBlocks, memory: Global, sources: Sources, seed: int = 0) -> None:
        self.batch, self.memory = batch, memory
        self.clocks = Clocks(batch)
        self.shared = Shadow(batch.shared.size, grain(batch.program, "shared"))
        self.races = Races(self.clocks, self.shared, memory, self._race)
        self.work = UnderWay(batch, self.clocks, self.races, seed, self._finding)
        self.leaving = Leaving(batch, self.clocks, self.work)
        self.meetings = Meetings(batch, sources)
        self.preceding = Preceding(batch)
        self.known = np.zeros(len(self.shared.writer), np.bool_)  # shared memory that something wrote
        own = zones(batch.program, batch.shared_end, self.shared.grain)
        self.zones = None if own is None else np.append(np.tile(own, len(batch.numbers)), False)
        self.read_only: dict[int, bool] = {}
        self.undefined = Undefined(batch)
        self.traits, self.asynchronous = traits(batch.program), works_later(batch.program)
        batch.shared[:] = POISON

    # ------------------------------------------------------------------ accesses
    def access(self, g: Lanes, ins: Instruction, space: str, index: Array, lanes: Array, width: int, how: str) -> None:
        """Check and remember an access of `lanes` at byte positions `index`. how: read, write or atomic."""
        if space == "local":
            self.undefined.local_access(g, index, lanes, width)
            return
        self.clocks.time += 1
        if space == "global":
            self.preceding.accessed(g, ins, index, lanes, width, how)
        if how == "read" and space == "global" and self._only_read(ins):
            return
        at = self._at(g, ins, space, index, lanes, width, how)
        if self.zones is not None and space == "shared" and self.zones[at.places].any():
            self._outside(at, self.zones[at.places])
        if space == "shared" and self.batch.shape.cluster > 1:
            self.leaving.accessed(at)
        if self.asynchronous:
            if space == "shared":
                self.work.check(at)
            else:
                self.work.check_stored(at)
        if how != "write":
            if space == "shared" and not self.known[at.places].all():
                self._unwritten(at, ~self.known[at.places])
            self.races.read(at)
        if how != "read":
            self.races.write(at)
            if space == "shared":
                self.known[at.places] = True
        if at.strong and not at.proxy and self.clocks.crossing:
            self._flag(at)
        if self.asynchronous and space == "shared" and how != "read":
            self.work.written(at)

    def stored(
        self, g: Lanes, ins: Instruction, space: str, index: Array, lanes: Array, raw: Array, width: int
    ) -> None:
        """Lanes of a warp that write different values to one element in one instruction: which stays is undefined.

        index: elements of `width` bytes; raw: their values, one a lane.
        """
        if space == "local" or self.traits[id(ins)][1] == STRONG:
            return
        index = np.broadcast_to(index, (len(lanes),))
        order = np.argsort(index, kind="stable")
        twice = np.flatnonzero(index[order[1:]] == index[order[:-1]])
        if not twice.size:
            return
        first, second = order[:-1][twice], order[1:][twice]
        values = np.ascontiguousarray(raw).view(np.uint8).reshape(len(lanes), -1)
        differing = np.flatnonzero((values[first] != values[second]).any(1))
        if differing.size:
            one, other = int(first[differing[0]]), int(second[differing[0]])
            address = int(index[one]) * width
            address = address % self.batch.stride if space == "shared" else address
            access = self.batch.words.access(ins, space, address, width, "write")
            them = self.batch.who(g, int(lanes[one]))
            text = f"race: {them} writes {access.split(maxsplit=2)[2]}, {access}: each element needs one owner"
            writer = int(self.batch.numbers[g.block[lanes[one]]]), int(g.thread[lanes[one]])
            before = fault_access(*writer, ins, "write", address)
            raise self.batch.fault(ins, "race", text, g, int(lanes[other]), address, OWNER, before, "write")

    def _unwritten(self, at: At, bad: Array) -> None:
        """A read of shared memory that nothing wrote: of a load, a finding once the value is used."""

        def fault(lane: int, used: str) -> KernelError:
            chosen = bad & (at.lanes == lane) if (bad & (at.lanes == lane)).any() else bad
            first = int(np.flatnonzero(chosen)[0])
            access = self.batch.words.access(at.ins, at.space, self._address(at, first), self.shared.grain, at.how)
            return self._fault(at, first, "uninitialised", f"{access}, which nothing has written{used}", "")

        if at.ins.names[0] not in LOADS:
            raise fault(int(at.lanes[bad][0]), "")
        self.undefined.loaded(at.g, at.ins, bad, at.lanes, self.shared.grain, Origin(at.ins, fault))

    def _only_read(self, ins: Instruction) -> bool:
        """Whether an instruction reads memory without a write in this kernel: there is nothing to race with."""
        if id(ins) not in self.read_only:
            based = [self._region(root) for root in read_roots(self.batch.program, ins)]
            written = [self._region(root) for root in stored(self.batch.program)]
            rooted = None not in based and None not in written
            self.read_only[id(ins)] = rooted and set(based).isdisjoint(written)
        return self.read_only[id(ins)]

    def _region(self, root: Root) -> Region | str | None:
        """The allocation that something points into; "shared" for shared memory; None where that is not known."""
        if root.kind == "variable":
            space, address = self.batch.program.places[root.name]
            return self.batch.memory.region(address) if space == "global" else space
        return self.batch.memory.region(self.batch.words.value(root)) if root.kind == "param" else None

    def _at(self, g: Lanes, ins: Instruction, space: str, index: Array, lanes: Array, width: int, how: str) -> At:
        number, strong, proxy = self.traits[id(ins)]
        shadow = self.shared if space == "shared" else self.memory
        if index.size != len(lanes):
            index = np.broadcast_to(index, (len(lanes),))
        parts = max(1, width // shadow.grain)
        places = index >> (shadow.grain.bit_length() - 1)
        whole = g.index is None and len(lanes) == g.lanes and how != "atomic"  # atomics take lanes in any order
        if parts > 1:
            places = (places[:, None] + np.arange(parts)).reshape(-1)
            lanes = np.repeat(lanes, parts)
        by = self.clocks.placed(g, parts if whole else 1)
        if not whole:
            by = Accessors(self.clocks, by.warps[lanes], by.threads[lanes])
        return At(g, ins, number, space, places, lanes, by, strong, how, proxy)

    def _flag(self, at: At) -> None:
        _, first = np.unique(at.warps * (len(self.races.shadow(at).writer) + 1) + at.places, return_index=True)
        chosen = np.sort(first)
        keys = [(at.space, place) for place in at.places[chosen].tolist()]
        self.clocks.flag(set(at.ins.names), at.how, keys, at.warps[chosen].tolist())

    # ------------------------------------------------------------------ barriers
    def straight(self, g: Lanes, ins: Instruction, index: Array, count: int | None) -> None:
        """A barrier at which all arrive at once."""
        self._counted(g, ins, index, count)
        if count is not None or (self.batch.remaining < self.batch.threads).any():
            threads = g.block[index] * self.batch.padded + g.thread[index]
            for block in np.unique(g.block[index]).tolist():
                came = threads[threads // self.batch.padded == block]
                self.meetings.complete(g, ins, index[g.block[index] == block], count, came, block)
        self.clocks.straight(g, index, count is None)

    def arrived(self, g: Lanes, ins: Instruction, index: Array, barrier: Barrier) -> None:
        self._counted(g, ins, index, barrier.count)
        self.meetings.comes(g, ins, barrier, index)
        self.clocks.arrived(g, index, barrier)

    def completed(self, barrier: Barrier, block: int) -> None:
        if barrier.waiting and barrier.came:
            one, came = barrier.waiting[0], np.concatenate([threads for _, threads in barrier.came])
            self.meetings.complete(one.group, barrier.came[0][0], one.index, barrier.count, came, block)
        self.clocks.completed(barrier, block)

    def _counted(self, g: Lanes, ins: Instruction, index: Array, count: int | None) -> None:
        if count is not None and count % WARP:
            message = f"a barrier for {count} threads: the count must be a multiple of {WARP}"
            raise self.batch.fault(ins, "barrier count", message, g, int(index[0]))

    # ------------------------------------------------------------------ reports
    def _race(self, at: At, bad: Array, other: Callable[[int], Other]) -> None:
        first = int(np.flatnonzero(bad)[0])
        earlier_access, words, code = other(first), self.batch.words, self.batch.program.instructions
        address = self._address(at, first)
        width = self.races.shadow(at).grain
        access = words.access(at.ins, at.space, address, width, at.how)
        place = access.split(maxsplit=2)[2]
        them = words.of_grid(earlier_access.thread)
        earlier = code[earlier_access.by] if earlier_access.by >= 0 else None
        before = earlier.location if earlier is not None else None
        theirs = fault_access(*divmod(earlier_access.thread, self.batch.padded), earlier, earlier_access.how, address)
        if earlier_access.how == "write" and at.how == "write" and words.one_statement(at.ins, earlier_access.by):
            text = f"race: {them} writes {place}, {access}: each element needs one owner"
            raise self._fault(at, first, "race", text, OWNER, theirs)
        them = f"another thread of the warp of {them}" if earlier_access.several else them
        line = f" ({words.line(before)})" if before is not None and before != at.ins.location else ""
        this, did = ("read" if at.how == "read" else "write"), ("read" if earlier_access.how == "read" else "written")
        text = f"race: this {this} is not ordered after a {earlier_access.how}: {access}, which {them} has {did}{line}"
        time = int(self.races.shadow(at).written_at[at.places[first]])
        raise self._fault(at, first, "race", text, hint(self.clocks, words, at, first, earlier_access, time), theirs)

    def _outside(self, at: At, bad: Array) -> None:
        """An access between two shared variables."""
        first = int(np.flatnonzero(bad)[0])
        text = self.batch.words.outside(at.ins, "shared", self._address(at, first), self.shared.grain, at.how)
        raise self._fault(at, first, "out of bounds", text, "")

    def notes(self) -> list[Finding]:
        """Accesses that are accepted without proof."""
        return [Finding("divergent", note) for note in self.meetings.notes]

    def _finding(self, at: At, bad: Array, kind: str, problem: str, hint: str) -> None:
        first = int(np.flatnonzero(bad)[0])
        grain = self.races.shadow(at).grain
        access = self.batch.words.access(at.ins, at.space, self._address(at, first), grain, at.how)
        raise self._fault(at, first, kind, access + problem, hint)

    def _address(self, at: At, place: int) -> int:
        address = int(at.places[place]) * self.races.shadow(at).grain
        return address % self.batch.stride if at.space == "shared" else address

    def _fault(
        self, at: At, place: int, kind: str, text: str, hint: str, before: FaultAccess | None = None
    ) -> KernelError:
        address = self._address(at, place)
        return self.batch.fault(at.ins, kind, text, at.g, int(at.lanes[place]), address, hint, before, at.how)
