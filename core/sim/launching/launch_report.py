"""What a launch did: how many instructions, and core.sim.counting's figures where they were asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from core.sim.counting import Counted
from core.sim.faults import Finding
from core.sim.machine.geometry import Shape
from core.sim.ptx.program import Program
from core.sim.resident import Batch
from core.sim.tape import Tape


@dataclass
class Report:
    """What one launch did. instructions: of the groups that ran in lockstep; lanes: threads that ran them, summed.

    program: what ran. reached: blocks of instructions that did, by their first instruction. looped: branch back to an
    earlier instruction -> the most times that it was taken in a batch of thread blocks.
    counts, tape: where they were asked for. findings: of strict mode, warnings all.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    instructions: int = 0
    lanes: int = 0
    program: Program | None = None
    reached: frozenset[int] = frozenset()
    looped: dict[int, int] = field(default_factory=dict)
    counts: Counted | None = None
    tape: Tape | None = None
    findings: list[Finding] = field(default_factory=list)


def summarise(program: Program, shape: Shape, batches: Iterable[Batch]) -> Report:
    report = Report(program.name, shape.grid, shape.block)
    for batch in batches:
        for start, times in batch.executed.items():
            block = program.blocks[start]
            length = block.stop - block.start
            report.instructions += times * length
            report.lanes += batch.lanes_run[start] * length
        report.reached |= batch.executed.keys()
        for branch, times in batch.looped.items():
            report.looped[branch] = max(times, report.looped.get(branch, 0))
    report.program = program
    return report
