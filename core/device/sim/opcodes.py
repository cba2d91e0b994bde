"""The table: opcode -> builder. A builder takes an instruction apart once and returns the function that runs it.

To add an opcode, write a builder in the module of its family under `@opcode("name")`. Opcodes are looked up by
their longest known prefix, so that "cp.async.bulk" and "cp.async" are different rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.device.sim.errors import PtxError
from core.device.sim.operands import Step
from core.device.sim.parser import Instruction
from core.errors import did_you_mean

if TYPE_CHECKING:
    from core.device.sim.program import Program

Builder = Callable[["Program", Instruction], Step]
OPCODES: dict[str, Builder] = {}


def opcode(*names: str) -> Callable[[Builder], Builder]:
    """Register a builder for opcodes."""

    def register(builder: Builder) -> Builder:
        for name in names:
            OPCODES[name] = builder
        return builder

    return register


def build(program: Program, instruction: Instruction) -> Step:
    """The function that runs an instruction. Raises PtxError, with its text and source line, for an unknown one."""
    parts = instruction.names
    for length in range(min(len(parts), 5), 0, -1):
        found = OPCODES.get(".".join(parts[:length]))
        if found:
            return found(program, instruction)
    raise PtxError(
        f"the simulator does not know `{instruction.text}` ({instruction.location}){did_you_mean(parts[0], OPCODES)}",
        hint="add a row to the table in core/device/sim for it",
    )
