"""atom and red: read, change, write as one step. Lanes at one address take their turns in lane order.

On the hardware the order is not defined; a fixed one keeps the simulator's bits repeatable, and strict mode runs such
kernels again in another. Fences order the accesses of one thread, which a simulator that runs instructions one by one
does anyway: they are no-ops here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.instructions.access import locate, settle
from core.sim.instructions.float_formats import FORMATS, canonical, exact_add
from core.sim.instructions.floats import EXTREMES
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, address_reader, bits_reader, need, writer
from core.sim.ptx.effects import elements
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import TYPES, UNSIGNED, Array, Type
from core.sim.ptx.state_spaces import space_of
from core.sim.ptx.syntax import Instruction
from core.sim.resident import Group

FAMILY = Family()
opcode = FAMILY.opcode

Change = Callable[[Array, Array], Array]  # (old value, operand) -> new value

CHANGES: dict[str, Change] = {
    "add": lambda old, b: old + b,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, b: b,
    "inc": lambda old, b: np.where(old >= b, old.dtype.type(0), old + old.dtype.type(1)),
    "dec": lambda old, b: np.where((old == 0) | (old > b), b, old - old.dtype.type(1)),
}


def _change(ins: Instruction, name: str, kind: Type) -> Change:
    """The change on raw bits."""
    if kind.name in FORMATS and name in ("add", "min", "max"):
        return _float_change(name, kind)
    plain = CHANGES[name]
    return lambda old, b: plain(old.view(kind.numpy), b.view(kind.numpy)).view(UNSIGNED[kind.bits])


def change_of(ins: Instruction, name: str = "", kind: Type | None = None) -> Change:
    """The change of a reducing copy, by its opcode."""
    change = name or next(n for n in ins.names if n in CHANGES)
    return _change(ins, change, kind or TYPES[ins.names[-1]])


def _float_change(name: str, kind: Type) -> Change:
    form, whole = FORMATS[kind.name], UNSIGNED[kind.bits]
    if kind.name in ("f32", "f64") and name == "add":
        return lambda old, b: _sum(old.view(kind.numpy), b.view(kind.numpy)).view(whole)
    small = UNSIGNED[form.bits]

    def change(old: Array, b: Array) -> Array:
        x, y = (form.decode(np.ascontiguousarray(v).view(small)) for v in (old, b))
        value = exact_add(x, y, "rn") if name == "add" else EXTREMES[name](x, y)
        return np.ascontiguousarray(form.encode(value, "rn")).view(whole)

    return change


def _sum(a: Array, b: Array) -> Array:
    total = a + b
    return canonical(total) if total.dtype == np.float32 else total


COMMUTE = {"add", "min", "max", "and", "or", "xor"}


def order_shows(program: Program) -> bool:
    """Whether the order of a kernel's atomics can show: not in integer sums whose results no thread reads."""
    return any(turn_shows(i) for i in program.instructions if i.names[0] in ("atom", "red"))


def turn_shows(ins: Instruction) -> bool:
    """Whether the turn of an atomic among others can show."""
    return ins.names[0] == "atom" or COMMUTE.isdisjoint(ins.names) or TYPES[ins.names[-1]].kind in "fh"


ATOMIC = "relaxed/acquire/release/acq_rel? $scope? global/$cluster?"
OPERATIONS = "and/or/xor/exch/cas $bits | $reduce u32/u64/s32/s64 | add noftz? f32/f64/$half | min/max noftz $half"


@opcode("atom", " | ".join(f"{ATOMIC} {one}" for one in OPERATIONS.split(" | ")))
@opcode("red", " | ".join(f"{ATOMIC} {one}" for one in (OPERATIONS + " | add noftz? $vector f32/$half").split(" | ")))
def _atomic(program: Program, ins: Instruction) -> Step:
    kind = TYPES[ins.names[-1]]
    returns = ins.names[0] == "atom"
    operations = [n for n in ins.names if n in CHANGES or n == "cas"]
    need(ins, len(operations) == 1)
    name, space = operations[0], space_of(ins.names)
    count = next((int(n[1:]) for n in ins.names if n in ("v2", "v4", "v8")), 1)
    need(ins, count == 1 or not returns, "a vector with a returned value")
    operands = ins.operands if returns else (None, *ins.operands)
    where = address_reader(program, operands[1]) if operands[1] else None
    assert where is not None and operands[2] is not None
    values = [bits_reader(program, o, UNSIGNED[kind.bits]) for o in elements(operands[2])]
    swap = bits_reader(program, operands[3], UNSIGNED[kind.bits]) if name == "cas" and operands[3] else None
    write = writer(program, operands[0]) if operands[0] else None
    change = None if name == "cas" else _change(ins, name, kind)

    def atomic(g: Group) -> None:
        lanes = g.indices()
        turns = slice(None) if g.batch.shuffle is None else _turns(g, lanes)
        base, lanes = g.spread(where(g))[turns], lanes[turns]
        old = np.empty(len(base), UNSIGNED[kind.bits])
        for i, value in enumerate(values):
            addresses = base + i * kind.bytes
            amounts = g.spread(value(g))[turns]
            other = g.spread(swap(g))[turns] if swap else amounts
            for place, part, positions in settle(space, addresses):
                own = slice(None) if positions is None else positions
                view, index = locate(g, ins, place, part, lanes[own], kind.bytes, "atomic")
                old[own] = in_turn(view, index, amounts[own], other[own], change)
        results = np.empty_like(old)
        results[turns] = old
        if change is None and (results != g.spread(values[0](g))).all():
            g.batch.polled += 1  # a lock that another thread holds
        else:
            g.batch.progress += 1
        if write is not None:
            write(g, g.spread_back(results))

    return atomic


def _turns(g: Group, lanes: Array) -> Array:
    """An order of lanes by chance: warp by warp, since strict mode orders warps, and by chance within each."""
    assert g.batch.shuffle is not None
    warps = g.block[lanes] * (g.batch.padded // 32) + g.thread[lanes] // 32
    ranks = g.batch.shuffle.permutation(int(warps.max()) + 1)
    return np.lexsort((g.batch.shuffle.random(len(lanes)), ranks[warps]))


def in_turn(view: Array, index: Array, value: Array, swap: Array, change: Change | None) -> Array:
    """Apply a change at every index, duplicates one after another; the values that each found there."""
    old = np.empty(len(index), view.dtype)
    order = np.argsort(index, kind="stable")
    placed = index[order]
    first = np.concatenate(([True], placed[1:] != placed[:-1]))
    starts = np.flatnonzero(first)
    turn = np.arange(len(index)) - np.repeat(starts, np.diff(np.append(starts, len(index))))
    for number in range(int(turn.max()) + 1 if len(turn) else 0):
        now = order[turn == number]
        at = index[now]
        before = view[at]
        old[now] = before
        if change is None:  # compare and swap: `value` is the expected one
            view[at] = np.where(before == value[now], swap[now], before)
        else:
            view[at] = change(before, value[now])
    return old


@opcode("membar", "cta/gl/sys")
@opcode("fence", "sc/acq_rel? $scope | mbarrier_init release cluster | proxy async global/shared::cta/shared::cluster?")
def _fence(program: Program, ins: Instruction) -> Step:
    proxy, of_global = "proxy" in ins.names, "global" in ins.names

    def fence(g: Group) -> None:
        if g.batch.watch is None or of_global:
            return  # of global memory, stores are not followed into the async proxy
        if proxy:
            g.batch.watch.work.proxy_fence(g)
        else:
            g.batch.watch.clocks.fence(g)

    return fence


@opcode("nanosleep", "u32")
@opcode("pmevent", "mask?")
@opcode("setmaxnreg", "inc/dec sync aligned u32")
def _no_effect(program: Program, ins: Instruction) -> Step:
    """Time and registers per thread are not modelled."""
    return lambda g: None


@opcode("griddepcontrol", "launch_dependents/wait")
def _griddepcontrol(program: Program, ins: Instruction) -> Step:
    """Launches run one after another: a wait has no effect but that strict mode knows of it."""

    def waited(g: Group) -> None:
        if g.batch.watch is not None:
            g.batch.watch.preceding.waited(g, g.indices())

    return waited if "wait" in ins.names else lambda g: None
