"""Coverage of a variant's kernels: the lines that no example ran, and the loops that never took a second round.

The simulator reports the blocks of instructions that a launch reached and the jumps back that it took; this module
unites them over all launches, instances and dtypes of a check, by source line. Lines that the compiler left out under
every macro do not count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from core.device.launch import LaunchRecord
from core.kernels.sources import prelude_file, with_headers
from core.op import Variant
from core.registry import shorten
from core.sim.launching.launch_report import Report
from core.sim.ptx.program import Program
from core.sim.ptx.syntax import Instruction, Location

WORK = ("ld", "st", "fma", "mma", "atom", "cp", "ldmatrix")  # the parts of a loop's body, without its counter
LOOPS = 1  # times that a jump back is to be taken, in one launch: a loop's body then ran twice


@dataclass(frozen=True)
class Gap:
    """A line that no example reaches, or a loop that never repeats. `text`: of the line, by which it is declared."""

    path: Path
    line: int
    text: str
    loop: bool

    def __str__(self) -> str:
        gap = "no example has the loop of this line go round twice" if self.loop else "no example runs this line"
        return f"{shorten(f'{self.path}:{self.line}')}: {gap}: {self.text}"


@dataclass
class Coverage:
    """The instructions that the launches of a check reached, by program."""

    reached: dict[Program, set[int]] = field(default_factory=dict)
    looped: dict[Program, dict[int, int]] = field(default_factory=dict)
    sources: dict[Program, Path] = field(default_factory=dict)

    def saw(self, record: LaunchRecord, report: Report) -> None:
        """Take note of one launch."""
        program = report.program
        if program is None:
            return
        self.sources[program] = record.kernel.source
        self.reached.setdefault(program, set()).update(report.reached)
        loops = self.looped.setdefault(program, {})
        for branch, times in report.looped.items():
            loops[branch] = max(times, loops.get(branch, 0))

    def gaps(self, variant: Variant) -> list[Gap]:
        """The lines and loops of the variant's own sources that were not reached, in order."""
        own = {path for paths in variant.sources.values() for path in paths}
        files = {path for source in own for path in with_headers(source)} - {prelude_file()}
        by_name = {str(path): path for path in files}
        lines: dict[tuple[str, int], bool] = {}
        loops: dict[tuple[str, int], bool] = {}
        for program in (p for p, source in self.sources.items() if source in own):
            for place, ran in self._lines(program):
                lines[place] = lines.get(place, False) or ran
            for place, went in self._loops(program):
                loops[place] = loops.get(place, False) or went
        places = [(place, False) for place, ran in lines.items() if not ran]
        places += [(place, True) for place, went in loops.items() if not went and lines.get(place, True)]
        return [gap_at(by_name[file], line, loop) for (file, line), loop in sorted(places) if file in by_name]

    def undeclared(self, variant: Variant) -> list[str]:
        """The gaps that the variant does not declare, and declarations without a gap, as text."""
        gaps = self.gaps(variant)
        texts = [str(gap) for gap in gaps if gap.text not in variant.uncovered]
        return texts + [f"`uncovered` has a line that is not a gap: {text}" for text in variant.uncovered if text not in
                        {gap.text for gap in gaps}]  # fmt: skip

    def _lines(self, program: Program) -> Iterator[tuple[tuple[str, int], bool]]:
        """Every line that has an instruction, and whether it ran; inlined ones count where they are written."""
        for block in program.blocks.values():
            ran = block.start in self.reached[program]
            for instruction in program.instructions[block.start : block.stop]:
                if place := place_of(instruction.location):
                    yield place, ran

    def _loops(self, program: Program) -> Iterator[tuple[tuple[str, int], bool]]:
        """Every line with a jump back, and whether that was taken; several turns in a row, which the compiler makes of
        a loop of few, count as well."""
        for branch, instruction in enumerate(program.instructions):
            start = back_to(program, branch)
            if start is None or not (place := place_of(instruction.location)):
                continue
            several = start in self.reached[program] and copies(program.instructions[start:branch]) > 1
            yield place, several or self.looped[program].get(branch, 0) >= LOOPS


def back_to(program: Program, at: int) -> int | None:
    """The target of a backward branch."""
    ins = program.instructions[at]
    if ins.names[0] != "bra":
        return None
    target = program.target(ins.operands[-1].name)  # type: ignore[union-attr]
    return target if target <= at else None


def copies(body: Sequence[Instruction]) -> int:
    """The turns of its loop that an unrolled body holds, by the number of instructions of each kind."""
    counts = Counter(ins.names[0] for ins in body if ins.names[0] in WORK)
    return math.gcd(*counts.values()) if counts else 1


def place_of(location: Location | None) -> tuple[str, int] | None:
    return (location.file, location.line) if location is not None else None


@cache
def text_of(path: Path) -> Sequence[str]:
    return path.read_text("utf-8").splitlines()


def gap_at(path: Path, line: int, loop: bool) -> Gap:
    lines = text_of(path)
    return Gap(path, line, lines[line - 1].strip() if line <= len(lines) else "", loop)
