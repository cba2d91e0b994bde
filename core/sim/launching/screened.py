"""Kernels whose launches the machine may screen for strict mode, and their launches.

Screening knows barriers of the whole thread block, bar.warp.sync, cp.async, atomics, and fences around them. A kernel
that orders its threads by anything else is left to the interpreter.
"""

from __future__ import annotations

import random

import numpy as np

from core.sim.instructions.atomics import order_shows, turn_shows
from core.sim.instructions.calls import calls_cuda, meets, needs_heap, prints
from core.sim.launching.thread_order import polls
from core.sim.machine.geometry import WARP, Shape
from core.sim.machine.wording import Wording
from core.sim.native.executor import Linked, WorkDone
from core.sim.native.screening import Grains, run_clean
from core.sim.ptx.address_roots import first_guesses
from core.sim.ptx.program import Program, per_program
from core.sim.ptx.state_spaces import space_of
from core.sim.ptx.syntax import Address, Immediate, Instruction
from core.sim.strict.barriers import is_whole
from core.sim.strict.preceding import waits
from core.sim.strict.races import WEAK
from core.sim.strict.shadow import grain
from core.sim.strict.watch import is_async, strength, zones

REACHING = ("ld", "ldu", "st", "red", "atom", "ldmatrix", "stmatrix", "prefetch", "prefetchu", "applypriority")
UNKNOWN = ("mapa", "getctarank", "mbarrier", "wmma", "wgmma", "call", "multimem")
PASSING = {"acquire", "release", "acq_rel"}  # atomics that are fences too
MOST_THREADS = 1 << 31


@per_program
def screenable(program: Program) -> bool:
    """Whether screening sees all that strict mode looks at in a kernel."""
    others = (polls, prints, needs_heap, meets, calls_cuda, first_guesses)
    return not any(ask(program) for ask in others) and all(_seen(program, ins) for ins in program.instructions)


def _seen(program: Program, ins: Instruction) -> bool:
    name = ins.names[0]
    if name in UNKNOWN or is_async(ins) or ("async" in ins.names and not _is_copy(ins)):
        return False
    if name == "fence" and not {"proxy", "mbarrier_init"}.isdisjoint(ins.names):
        return False
    if name in ("atom", "red"):
        return PASSING.isdisjoint(ins.names) and (not turn_shows(ins) or space_of(ins.names) == "global")
    if strength(ins) != WEAK and name not in ("fence", "membar"):
        return False
    if name in ("bar", "barrier"):
        return "warp" in ins.names or _is_plain_barrier(ins)
    if "nc" in ins.names and waits(program):
        return False
    reaches = any(isinstance(operand, Address) for operand in ins.operands)
    return not reaches or name in REACHING or _is_copy(ins)


def _is_plain_barrier(ins: Instruction) -> bool:
    number = ins.operands[int("red" in ins.names)]
    return is_whole(ins) and len(ins.operands) in (1, 3) and isinstance(number, Immediate)


def _is_copy(ins: Instruction) -> bool:
    return ins.names[:2] == ("cp", "async") and ins.names[2:3] != ("mbarrier",)


def screened(native: Linked, words: Wording, shape: Shape, smem: int, limit: int) -> WorkDone | None:
    """Run a launch of a screenable kernel, whose arguments are in memory. None where strict mode may find something:
    memory is as it was then."""
    program, memory = words.program, words.memory
    padded = -(-shape.threads // WARP) * WARP
    if shape.cluster > 1 or shape.blocks * padded >= MOST_THREADS:
        return None
    end = program.shared_size + smem if smem else program.shared_used
    shared = grain(program, "shared")
    unowned = zones(program, end, shared)
    if unowned is None:
        unowned = np.zeros(-(-end // 128) * 128 // shared, np.bool_)
    before = memory.bytes[: memory.top].copy()
    grains = Grains(shared, grain(program, "global"), unowned, waits(program))
    work, after = None, None
    for order in orders(program, shape.blocks):
        memory.bytes[: len(before)] = before
        work = run_clean(native, shape, smem, limit, memory, grains, order)
        if work is None or (after is not None and not np.array_equal(after, memory.bytes[: len(before)])):
            memory.bytes[: len(before)] = before
            return None
        after = memory.bytes[: len(before)].copy()
    return work


def orders(program: Program, blocks: int) -> list[list[int]]:
    """The orders of thread blocks in which a launch is screened: several where the turns of atomics may show."""
    first = list(range(blocks))
    return [first, first[::-1], random.Random(blocks).sample(first, blocks)] if order_shows(program) else [first]
