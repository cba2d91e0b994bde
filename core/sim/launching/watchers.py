"""Observers of a launch in fast mode: the counter, the recorder of a tape, or both."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from core.sim.counting import Counter
from core.sim.machine.lanes import Lanes
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction
from core.sim.resident import Batch
from core.sim.tape import Tape
from core.sim.tape_rows import TapeRecorder

Taped = bool | Collection[int]  # all thread blocks, none, or those of these numbers in the grid


def watch(batch: Batch, count: bool, tape: Taped) -> None:
    """Have a batch counted, taped, or both, from before its first instruction."""
    counter = batch.counter = Counter(batch) if count else None
    recorder = batch.tape = TapeRecorder(batch, None if tape is True else tape) if tape else None
    if counter is None or recorder is None:
        batch.observe = counter.access if counter else recorder.access if recorder else None
        return

    def both(g: Lanes, ins: Instruction, space: str, index: Array, lanes: Array, width: int, how: str) -> None:
        counter.access(g, ins, space, index, lanes, width, how)
        recorder.access(g, ins, space, index, lanes, width, how)

    batch.observe = both


def tape_of(program: Program, batches: Sequence[Batch]) -> Tape:
    """The rows of all batches, in the order of their thread blocks."""
    return Tape(program, batches[0].words, [row for batch in batches if batch.tape for row in batch.tape.rows])
