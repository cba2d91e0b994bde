"""The order in which a kernel's threads and thread blocks run, as its instructions allow.

Where no instruction lets an order show in the result, batches of thread blocks run in lockstep and at once; a kernel
that polls memory, prints, or takes turns by atomics gets an order of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.sim.instructions.atomics import order_shows
from core.sim.instructions.calls import calls_cuda, meets, needs_heap, prints
from core.sim.launching.scheduler import LANES, Order
from core.sim.machine.geometry import Shape
from core.sim.native.stored import KernelFacts
from core.sim.ptx.effects import uses_wgmma
from core.sim.ptx.program import Program, per_program
from core.sim.strict.clocks import orders_blocks
from core.sim.strict.watch import works_later
from core.threads import cores

SEEDS = (1, 2)  # of strict mode's further orders
SPLIT = 8192  # lanes of a launch from which it is worth two threads


def strict_orders(program: Program, seeds: Sequence[int] = SEEDS) -> list[Order]:
    """The orders in which strict mode runs a kernel: first with asynchronous work as late as it may be, then by chance.

    Without asynchronous work and atomics whose order can show, every order that the race check accepts gives the same
    bits: one is enough. wgmma fills whole registers, so that its warpgroups are kept apart.
    """
    separate, shows = strict_traits(program)
    further = [Order("apart" if separate else "across", seed) for seed in seeds] if shows else []
    return [Order("apart" if separate else "one"), *further]


@per_program
def strict_traits(program: Program) -> tuple[bool, bool]:
    """(whether warpgroups are kept apart, whether an order can show in bits that have no race)."""
    shows = works_later(program) or order_shows(program) or polls(program)
    return polls(program) or uses_wgmma(program), shows


@per_program
def thread_order_shows(program: Program) -> bool:
    """Whether the order of warps can show: each then runs until it waits, as on the machine."""
    return order_shows(program) or prints(program)


@per_program
def block_order_shows(program: Program) -> bool:
    """Whether the order of thread blocks can show in the result: they then run in the order of their numbers."""
    return calls_cuda(program) or any(
        i.names[0] in ("atom", "red") and "shared" not in " ".join(i.names) for i in program.instructions
    )


@per_program
def facts_of(program: Program) -> KernelFacts:
    return KernelFacts(
        name=program.name, title=program.title, required_cluster=program.required_cluster,
        max_threads=program.max_threads, shared_size=program.shared_size, shared_used=program.shared_used,
        static_shared=program.static_shared, zones=program.zones, local_size=program.local_size,
        parameters=tuple((variable.size, offset) for variable, offset in program.parameters),
        heap=needs_heap(program), meets=meets(program), prints=prints(program), ordered=block_order_shows(program),
        polls=polls(program),
    )  # fmt: skip


@per_program
def polls(program: Program) -> bool:
    """Whether a kernel waits in a loop: its loads look for the writes of other threads."""
    return any(
        i.names[0] == "ld"
        and {"acquire", "volatile", "relaxed"} & set(i.names)
        and "shared" not in i.names
        or (i.names[0] == "atom" and "cas" in i.names)
        or i.names[:2] == ("mbarrier", "test_wait")
        for i in program.instructions
    )


def blocks_together(program: Program, shape: Shape, strict: bool) -> int:
    """The thread blocks of a batch; all of them where they wait for each other."""
    if polls(program) or (strict and orders_blocks(program)):
        return shape.blocks
    if not strict and thread_order_shows(program):
        return shape.cluster
    padded = -(-shape.threads // 32) * 32
    most = max(1, LANES // padded // shape.cluster)
    # As many batches as keep every core busy to the end.
    clusters, workers = -(-shape.blocks // shape.cluster), 1 if block_order_shows(program) else cores()
    batches = -(-clusters // most)
    batches = -(-batches // workers) * workers if clusters * shape.cluster * padded >= SPLIT else batches
    return max(1, -(-clusters // max(batches, 1))) * shape.cluster
