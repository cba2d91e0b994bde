"""The report of a launch: its instructions, and core.sim.counting's figures where they were requested."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from core.sim.counting import Counted
from core.sim.faults import Finding
from core.sim.machine.geometry import Shape
from core.sim.native.executor import Linked, WorkDone
from core.sim.ptx.program import Program
from core.sim.resident import Batch
from core.sim.tape import Tape


@dataclass
class Report:
    """The report of one launch. instructions: of the groups that ran in lockstep; lanes: threads that ran them, summed.

    program: the kernel. visits: first instruction of a block of instructions -> how often a group (natively a warp) ran
    it, and lanes, summed. looped: branch back to an earlier instruction -> the most times that it was taken in a batch
    of thread blocks.
    counts, tape: where they were requested. findings: of strict mode, warnings all.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    instructions: int = 0
    lanes: int = 0
    linked: Callable[[], Program] | None = None
    visits: dict[int, tuple[int, int]] = field(default_factory=dict)
    looped: dict[int, int] = field(default_factory=dict)
    counts: Counted | None = None
    tape: Tape | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def program(self) -> Program | None:
        """The kernel that ran, linked at the first request."""
        return self.linked() if self.linked is not None else None

    @property
    def reached(self) -> frozenset[int]:
        """The blocks of instructions that ran, by their first instruction."""
        return frozenset(self.visits)


def native_report(kernel: Linked, shape: Shape, work: WorkDone | None) -> Report:
    """The report of a launch on the native machine, whose instructions are warps'; without marks it has no counts."""
    report = Report(kernel.facts.name, shape.grid, shape.block, linked=kernel.program)
    if work is None:
        return report
    blocks = kernel.program().blocks
    for start, ran, lanes in zip(kernel.code.marks, work.ran.tolist(), work.lanes.tolist(), strict=True):
        if ran:
            length = blocks[start].stop - start
            report.instructions += ran * length
            report.lanes += lanes * length
            report.visits[start] = ran, lanes
    report.looped = {pc: n for pc, n in zip(kernel.code.loops, work.looped.tolist(), strict=True) if n}
    return report


def summarise(program: Program, shape: Shape, batches: Iterable[Batch]) -> Report:
    report = Report(program.name, shape.grid, shape.block)
    for batch in batches:
        for start, times in batch.executed.items():
            block = program.blocks[start]
            length = block.stop - block.start
            report.instructions += times * length
            report.lanes += batch.lanes_run[start] * length
            ran, lanes = report.visits.get(start, (0, 0))
            report.visits[start] = ran + times, lanes + batch.lanes_run[start]
        for branch, times in batch.looped.items():
            report.looped[branch] = max(times, report.looped.get(branch, 0))
    report.linked = lambda: program
    return report
