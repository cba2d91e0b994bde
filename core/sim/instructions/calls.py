"""Functions that CUDA itself brings, which PTX declares and does not define: assert, printf, malloc, free.

A call's .param variables are in the local memory of the thread (ptx/program.py), where these read their arguments and
leave their results.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.sim.faults import PtxError
from core.sim.instructions.access import locate, settle
from core.sim.instructions.opcodes import Family
from core.sim.instructions.operands import Step, reader
from core.sim.machine.address_space import LONGEST_STRING, Heap
from core.sim.machine.c_format import c_format
from core.sim.machine.wording import calls_itself, failed_assertion, no_function
from core.sim.ptx.program import CALL_ITSELF, CALL_NOWHERE, Program, call_parameters, per_program
from core.sim.ptx.register_types import TYPES, WIDE, Array
from core.sim.ptx.syntax import Instruction, Special, Symbol
from core.sim.resident import Group

FAMILY = Family()
opcode = FAMILY.opcode

FROM_KERNELS = ("LaunchDevice", "GetParameterBuffer")  # in the names of the functions that <<<>>> of a kernel calls

Place = Callable[[Group], tuple[Array, Array]]  # local memory as elements, and indices into it


def _slot(program: Program, symbol: str, nbytes: int) -> Place:
    """The place of a call's .param variable, for the lanes concerned."""
    _, address = program.place(Symbol(symbol))
    wide = WIDE[8 * nbytes]

    def place(g: Group) -> tuple[Array, Array]:
        batch = g.batch
        return batch.local_memory(g).view(wide), (g.indices() * batch.local_stride + address) // nbytes

    return place


def _inputs(program: Program, ins: Instruction, *sizes: int) -> list[Place]:
    names = call_parameters(ins)[1]
    if len(names) != len(sizes):
        raise PtxError(f"`{ins.text}` ({ins.location}) has {len(names)} arguments; expected {len(sizes)}")
    return [_slot(program, name, size) for name, size in zip(names, sizes, strict=True)]


def _values(g: Group, place: Place) -> Array:
    view, index = place(g)
    return np.asarray(view[index])


def _bytes(g: Group, ins: Instruction, address: int, lane: int, count: int) -> bytes:
    """`count` bytes at a generic address, as the lane sees them."""
    addresses, lanes = address + np.arange(count), np.full(count, lane)
    ((space, within, _),) = settle("generic", addresses)
    view, index = locate(g, ins, space, within, lanes, 1, "read")
    return np.asarray(view[index]).tobytes()


def _string(g: Group, ins: Instruction, address: int, lane: int) -> str:
    """The C string at a generic address."""
    text = bytearray()
    while len(text) < LONGEST_STRING:
        one = _bytes(g, ins, address + len(text), lane, 1)
        if one == b"\0":
            break
        text += one
    return text.decode("utf-8", "replace")


@opcode("call.__assertfail", "")
def _assert(program: Program, ins: Instruction) -> Step:
    """__assertfail(text, file, line, function, bytes of a character)."""
    text, file, line, function, _ = _inputs(program, ins, 8, 8, 4, 8, 8)

    def fail(g: Group) -> None:
        lane = int(g.indices()[0])
        condition, where, inside = (_string(g, ins, int(_values(g, p)[0]), lane) for p in (text, file, function))
        raise g.batch.fault(
            ins, "assert", failed_assertion(condition, where, inside, int(_values(g, line)[0])), g, lane
        )

    return fail


@opcode("call.nowhere", "")
def _nowhere(program: Program, ins: Instruction) -> Step:
    """The target of a call through a pointer that no function with its parameters has (ptx/program.py)."""
    pointer = reader(program, ins.operands[0], TYPES["u64"])

    def fail(g: Group) -> None:
        lane, address = int(g.indices()[0]), int(g.spread(pointer(g))[0])
        raise g.batch.fault(ins, "call", no_function(address), g, lane)

    return fail


@opcode("call.itself", "")
def _itself(program: Program, ins: Instruction) -> Step:
    """The call of a function that is under way already (ptx/program.py)."""
    text, hint = calls_itself(ins)

    def fail(g: Group) -> None:
        raise g.batch.fault(ins, "call", text, g, int(g.indices()[0]), hint=hint)

    return fail


@opcode("call.vprintf", "")
def _printf(program: Program, ins: Instruction) -> Step:
    """vprintf(format, buffer of the arguments): how many arguments there were."""
    formats, buffers = _inputs(program, ins, 8, 8)
    results = call_parameters(ins)[0]
    result = _slot(program, results[0], 4) if results else None
    texts: dict[int, str] = {}

    def text_at(g: Group, address: int, lane: int) -> str:
        if address not in texts:
            texts[address] = _string(g, ins, address, lane)
        return texts[address]

    def display(g: Group) -> None:
        g.batch.progress += 1
        texts.clear()
        counts = []
        where, pointers = _values(g, formats), _values(g, buffers)
        for lane, at, buffer in zip(g.indices().tolist(), where.tolist(), pointers.tolist(), strict=True):

            def read(offset: int, size: int, lane: int = lane, buffer: int = buffer) -> bytes:
                return _bytes(g, ins, buffer + offset, lane, size)

            text, count = c_format(text_at(g, at, lane), read, lambda a, lane=lane: _string(g, ins, a, lane))  # type: ignore[misc]
            g.batch.printed.append(text)
            counts.append(count)
        if result is not None:
            view, index = result(g)
            view[index] = counts

    return display


def _heap(g: Group) -> Heap:
    heap = g.batch.memory.heap
    assert heap is not None  # made before the launch (needs_heap)
    return heap


@per_program
def needs_heap(program: Program) -> bool:
    return any(i.names in (("call", "malloc"), ("call", "free")) for i in program.instructions)


@per_program
def meets(program: Program) -> bool:
    """Whether a kernel uses the place where the thread blocks of its grid meet (state_spaces.GRID)."""
    return any(o == Special("%envreg2") for i in program.instructions for o in i.operands)


@per_program
def prints(program: Program) -> bool:
    return any(i.names == ("call", "vprintf") for i in program.instructions)


@per_program
def calls_cuda(program: Program) -> bool:
    """Whether the order of thread blocks shows in a kernel's output, or in the addresses that it allocates."""
    silent = (("call", "__assertfail"), CALL_NOWHERE, CALL_ITSELF)
    return any(i.names[0] == "call" and i.names not in silent for i in program.instructions)


@opcode("call.malloc", "")
def _malloc(program: Program, ins: Instruction) -> Step:
    """malloc(bytes): an address, or 0 where the heap has no room."""
    (size,) = _inputs(program, ins, 8)
    result = _slot(program, call_parameters(ins)[0][0], 8)

    def allocate(g: Group) -> None:
        g.batch.progress += 1
        view, index = result(g)
        view[index] = [_heap(g).allocate(int(n)) for n in _values(g, size)]

    return allocate


@opcode("call.free", "")
def _free(program: Program, ins: Instruction) -> Step:
    """free(address), of malloc or null."""
    (address,) = _inputs(program, ins, 8)

    def give_back(g: Group) -> None:
        g.batch.progress += 1
        for lane, at in zip(g.indices().tolist(), _values(g, address).tolist(), strict=True):
            if at and not _heap(g).free(at):
                message = "free of an address that malloc did not give, or that is free already"
                raise g.batch.fault(ins, "free", message, g, lane, at)

    return give_back


@opcode("call", "")
def _unknown(program: Program, ins: Instruction) -> Step:
    if any(name in ins.text for name in FROM_KERNELS):
        raise PtxError(
            f"the simulator launches no kernel from a kernel: `{ins.text}` ({ins.location})",
            hint="launch it from the host; a __device__ function can be called",
        )
    raise PtxError(f"the simulator cannot call `{ins.text}` ({ins.location}): the function is not in the source")
