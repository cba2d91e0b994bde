"""What a launch did, counted: instructions per source line, lanes that ran them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.device.sim.count import Counted
    from core.device.sim.program import Program
    from core.device.sim.scheduler import Batch, Shape


@dataclass
class Line:
    """Counts of one source line. lanes: threads that ran its instructions, summed over instructions."""

    instructions: int = 0
    lanes: int = 0


@dataclass
class Report:
    """What one launch did. counts: in full, where they were asked for."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    instructions: int = 0
    lanes: int = 0
    lines: dict[str, Line] = field(default_factory=dict)
    counts: Counted | None = None


def summarise(program: Program, shape: Shape, batches: Iterable[Batch]) -> Report:
    report = Report(program.name, shape.grid, shape.block)
    for batch in batches:
        for start, times in batch.executed.items():
            block = program.blocks[start]
            for ins in program.instructions[block.start : block.stop]:
                line = report.lines.setdefault(str(ins.location), Line())
                line.instructions += times
                line.lanes += batch.lanes_run[start]
                report.instructions += times
                report.lanes += batch.lanes_run[start]
    return report
