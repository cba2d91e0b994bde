"""Control flow: branches, exits and barriers.

A control function returns the next program counter for all lanes concerned, or GONE when it has queued, parked
or ended them itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Read, bits_reader, need
from core.sim.ptx.block import End
from core.sim.ptx.program import EXIT, GONE, Program
from core.sim.ptx.register_types import BOOL, UNSIGNED, Array
from core.sim.ptx.syntax import Instruction, Symbol
from core.sim.resident import Group

FAMILY = Family()
control = FAMILY.control


def condition(program: Program, instruction: Instruction) -> Read:
    """Reads an instruction's predicate."""
    assert instruction.predicate is not None
    read = bits_reader(program, instruction.predicate, BOOL)
    if instruction.negated:
        return lambda g: ~read(g)
    return read


def fall_through(pc: int) -> End:
    return lambda g: pc


def split(g: Group, chosen: Array) -> tuple[Array, Array]:
    """The lanes concerned, parted by a condition over them: (those where it holds, the others), as masks."""
    index = g.indices()
    taken, others = np.zeros(g.lanes, np.bool_), np.zeros(g.lanes, np.bool_)
    taken[index[chosen]] = True
    others[index[~chosen]] = True
    return taken, others


def _parted(g: Group, pc: int, ways: Iterable[tuple[Array, int]]) -> None:
    """Strict mode learns which of the lanes concerned go where at a branch (by a condition each, of all or of one)."""
    meetings = g.batch.watch.meetings if g.batch.watch is not None else None
    if meetings is None or pc not in meetings.partings:
        return
    index = g.indices()
    for chosen, to in ways:
        lanes = index[chosen] if chosen.size > 1 else index[: len(index) if chosen[0] else 0]
        if len(lanes):
            meetings.took(g, pc, lanes, to)


@control("bra", "uni?")
def _bra(program: Program, ins: Instruction, pc: int) -> End:
    label = ins.operands[-1]
    need(ins, isinstance(label, Symbol))
    assert isinstance(label, Symbol)
    target, following = program.target(label.name), pc + 1
    back = target <= pc
    if ins.predicate is None:
        return _looping(pc, target) if back else lambda g: target
    read = condition(program, ins)
    taken_exits, other_exits = program.exits(target), program.exits(following)

    def branch(g: Group) -> int:
        chosen = g.concerned(read(g))
        if g.batch.watch is not None:
            _parted(g, pc, ((chosen, target), (~chosen, following)))
        if back and chosen.any():
            g.batch.looped[pc] = g.batch.looped.get(pc, 0) + 1
        if chosen.size == 1:
            return target if chosen[0] else following
        if chosen.all():
            return target
        if not chosen.any():
            return following
        taken, others = split(g, chosen)
        # Lanes that would only exit do so at once: the rest then counts as all lanes.
        for lanes, place, exits in ((taken, target, taken_exits), (others, following, other_exits)):
            if exits:
                g.batch.exited(g, lanes)
            else:
                g.queue(place, lanes)
        return GONE

    return branch


def _looping(pc: int, target: int) -> End:
    """A jump back that all lanes take, counted."""

    def jump(g: Group) -> int:
        g.batch.looped[pc] = g.batch.looped.get(pc, 0) + 1
        return target

    return jump


@control("brx", "idx uni?")
def _brx(program: Program, ins: Instruction, pc: int) -> End:
    table = ins.operands[1]
    need(ins, isinstance(table, Symbol) and ins.predicate is None)
    assert isinstance(table, Symbol)
    targets = np.array([program.target(name) for name in program.tables[table.name]])
    read = bits_reader(program, ins.operands[0], UNSIGNED[32])

    def branch(g: Group) -> int:
        places = targets[g.concerned(read(g)).astype(np.int64)]
        if g.batch.watch is not None:
            _parted(g, pc, [(places == to, int(to)) for to in np.unique(places)])
        if places.size == 1 or (places == places[0]).all():
            return int(places[0])
        for place in np.unique(places):
            g.queue(int(place), split(g, places == place)[0])
        return GONE

    return branch


@control("exit", "")
@control("ret", "uni?")
def _exit(program: Program, ins: Instruction, pc: int) -> End:
    read = condition(program, ins) if ins.predicate is not None else None

    def leave(g: Group) -> int:
        if read is None:
            g.batch.exited(g, g.active())
            return GONE
        chosen = g.spread(read(g))
        if g.batch.watch is not None:
            _parted(g, pc, ((chosen, EXIT),))
        taken, others = split(g, chosen)
        if taken.any():
            g.batch.exited(g, taken)
        if others.any():
            g.queue(pc + 1, others)
        return GONE

    return leave


@control("trap", "")
def _trap(program: Program, ins: Instruction, pc: int) -> End:
    read = condition(program, ins) if ins.predicate is not None else None

    def trap(g: Group) -> int:
        hit = g.indices() if read is None else g.indices()[g.spread(read(g))]
        if hit.size:
            raise g.batch.fault(ins, "trap", "the kernel stopped itself (trap)", g, int(hit[0]))
        return pc + 1

    return trap
