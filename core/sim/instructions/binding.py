"""Binds a kernel: its instructions become functions, in blocks that always run together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import numpy as np

from core.sim.faults import PtxError
from core.sim.instructions.control import condition, fall_through
from core.sim.instructions.floats import fma_run, independent, is_plain_fma
from core.sim.instructions.opcodes import OpcodeTable
from core.sim.instructions.operands import Step
from core.sim.instructions.wgmma_guards import guarded
from core.sim.ptx.block import Block, End
from core.sim.ptx.effects import wgmma_registers
from core.sim.ptx.program import Program
from core.sim.ptx.syntax import Instruction
from core.sim.resident import Group


def bind(program: Program, table: OpcodeTable) -> Program:
    """Cut the instructions into blocks at branches, at their targets and at instructions that may suspend a thread. The
    functions of a block are built when it first runs."""
    code, special = program.instructions, wgmma_registers(program)
    starts = {0, len(code)} | set(program.labels.values())
    for pc, instruction in enumerate(code):
        if table.is_control(instruction):
            starts.add(pc + 1)
    ordered = sorted(starts)
    for start, stop in zip(ordered, ordered[1:], strict=False):
        program.blocks[start] = Block(start, stop, partial(_built, program, table, start, stop, special))
    # Falling off the end is an exit.
    exiting = Instruction("exit", (), None, False, code[-1].location, "exit", ("exit",)) if code else None
    if exiting:
        end = table.end(program, exiting, len(code))
        program.blocks[len(code)] = Block(len(code), len(code), lambda: ([], [], end))
    return program


def missing(program: Program) -> list[PtxError]:
    """All that the simulator does not have of a bound kernel, where it is never reached too."""
    for block in program.blocks.values():
        _ = block.built
    return program.missing


def _built(
    program: Program, table: OpcodeTable, start: int, stop: int, special: set[int]
) -> tuple[list[Step], list[int], End]:
    """A block's functions, how many instructions each is, and its end."""
    code, last = program.instructions, program.instructions[stop - 1]
    ends = table.is_control(last)
    steps, covers = _steps(program, table, code[start : stop - 1] if ends else code[start:stop], special)
    return steps, covers, _end(program, table, last, stop - 1) if ends else fall_through(stop)


def _steps(
    program: Program, table: OpcodeTable, body: list[Instruction], special: set[int]
) -> tuple[list[Step], list[int]]:
    """One function per instruction, but one for a run of fma that do not touch each other's results; how many each is.

    special: the registers that some wgmma of the kernel uses.
    """
    if special:
        return [guarded(program, i, _predicated(program, table, i), special) for i in body], [1] * len(body)
    steps: list[Step] = []
    covers: list[int] = []
    run: list[Instruction] = []

    def flush() -> None:
        if run:
            program.pure |= {id(i) for i in run}
            steps.append(fma_run(program, list(run)) if len(run) > 1 else _predicated(program, table, run[0]))
            covers.append(len(run))
        run.clear()

    for instruction in body:
        if not is_plain_fma(instruction):
            flush()
            steps.append(_predicated(program, table, instruction))
            covers.append(1)
            continue
        if run and not independent([*run, instruction]):
            flush()
        run.append(instruction)
    flush()
    return steps, covers


def _end(program: Program, table: OpcodeTable, instruction: Instruction, pc: int) -> End:
    try:
        return table.end(program, instruction, pc)
    except PtxError as error:
        return _refusing(program, error)


def _refusing(program: Program, error: PtxError) -> Callable[[Group], NoReturn]:
    """An instruction that the simulator does not have is an error where a thread reaches it, not before."""
    program.missing.append(error)

    def refuse(g: Group) -> NoReturn:
        who = g.batch.who(g, int(g.indices()[0]))
        raise PtxError(f"{error.message}, which {who} of kernel {program.title} has reached", hint=error.hint)

    return refuse


def _step(program: Program, table: OpcodeTable, instruction: Instruction) -> Step:
    try:
        row = table.row(instruction)
        step = row.builder(program, instruction)
    except PtxError as error:
        return _refusing(program, error)
    if row.pure:
        program.pure.add(id(instruction))
    return step


def _predicated(program: Program, table: OpcodeTable, instruction: Instruction) -> Step:
    step = _step(program, table, instruction)
    if instruction.predicate is None:
        return step
    read = condition(program, instruction)

    def run(g: Group) -> None:
        chosen = read(g)
        if chosen.size == 1:
            if chosen[0]:
                step(g)
            return
        chosen = g.concerned(chosen)
        if chosen.all():
            step(g)
        elif chosen.any():
            before = g.state()
            lanes = np.zeros(g.lanes, np.bool_)
            lanes[g.indices()[chosen]] = True
            g.select(lanes)
            step(g)
            g.restore(before)

    return run
