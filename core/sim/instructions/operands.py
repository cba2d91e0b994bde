"""Operands -> functions that read and write them for the lanes concerned.

A reader returns an array of the requested type: one element per lane (or per picked lane), or a single element where
all lanes agree. The array must not be changed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from core.sim.faults import PtxError
from core.sim.machine.special import special
from core.sim.ptx.program import Program
from core.sim.ptx.register_types import BOOL, SIGNED, UNSIGNED, Array, Type
from core.sim.ptx.syntax import Address, Immediate, Instruction, Negated, Operand, Register, Special, Symbol
from core.sim.resident import Group

Read = Callable[[Group], Array]
Write = Callable[[Group, Array], None]
Step = Callable[[Group], None]


def reader(program: Program, operand: Operand, kind: Type) -> Read:
    """Reads an operand as `kind`: the register's bits, cut or zero-extended where the widths differ."""
    return bits_reader(program, operand, kind.numpy)


def bits_reader(program: Program, operand: Operand, dtype: np.dtype[Any]) -> Read:
    if isinstance(operand, Register):
        return _register_reader(program.number(operand), program.kind(operand).raw, dtype)
    if isinstance(operand, Immediate):
        return _constant(immediate(operand, dtype))
    if isinstance(operand, Symbol):
        return _constant(
            np.array([program.address(operand)], np.uint64).astype(UNSIGNED[8 * dtype.itemsize]).view(dtype)
        )
    if isinstance(operand, Special):
        return _special_reader(operand.name, dtype)
    if isinstance(operand, Negated):
        inner = bits_reader(program, operand.operand, BOOL)
        return lambda g: ~inner(g)
    raise PtxError(f"an operand of this form cannot be read: {operand}")


def immediate(operand: Immediate, dtype: np.dtype[Any]) -> Array:
    """A constant as one element of `dtype`."""
    if dtype == BOOL:
        return np.array([operand.bits != 0])
    width = 8 * dtype.itemsize
    if operand.floating and dtype.kind == "f" and operand.floating != width:
        carrier = np.array([operand.bits], UNSIGNED[operand.floating]).view(f"f{operand.floating // 8}")
        return carrier.astype(dtype)
    return np.array([operand.bits & ((1 << width) - 1)], UNSIGNED[width]).view(dtype)


def _constant(value: Array) -> Read:
    value.flags.writeable = False
    return lambda g: value


def _register_reader(number: int, raw: np.dtype[Any], dtype: np.dtype[Any]) -> Read:
    if raw == dtype:

        def read_raw(g: Group) -> Array:
            value = g.registers[number]
            return value if g.picked is None or value.size == 1 else value[g.picked]

        return read_raw
    if raw.itemsize == dtype.itemsize:

        def read_view(g: Group) -> Array:
            value = g.registers[number]
            return value.view(dtype) if g.picked is None or value.size == 1 else value[g.picked].view(dtype)

        return read_view
    carrier = UNSIGNED[8 * dtype.itemsize]

    def read_resized(g: Group) -> Array:
        value = g.registers[number]
        if g.picked is not None and value.size > 1:
            value = value[g.picked]
        return value.astype(carrier).view(dtype)

    return read_resized


def _special_reader(name: str, dtype: np.dtype[Any]) -> Read:
    carrier = UNSIGNED[8 * dtype.itemsize]
    changing = name.startswith(("%clock", "%globaltimer"))

    def read(g: Group) -> Array:
        value = g.special.get(name)
        if value is None:
            value = special(g.batch, g, name)
            if not changing:
                g.special[name] = value
        if g.picked is not None and value.size > 1:
            value = value[g.picked]
        return value.astype(carrier).view(dtype)

    return read


def writer(program: Program, operand: Operand, signed: bool = False) -> Write:
    """Writes a destination; a narrower value is zero-extended, or sign-extended if it is signed."""
    if not isinstance(operand, Register):
        raise PtxError(f"not a destination: {operand}")
    if operand.name == "_":
        return lambda g, value: None
    number, raw = program.number(operand), program.kind(operand).raw

    def write(g: Group, value: Array) -> None:
        if value.dtype is not raw:
            value = value.view(raw) if value.dtype.itemsize == raw.itemsize else value.astype(raw)
        if g.picked is None and g.mask is None:
            g.registers[number] = value
            if g.owned:
                g.owned.discard(number)
        else:
            g.merge(number, value)

    return write


def disowning(program: Program, operand: Operand, step: Step) -> Step:
    """For instructions that may give one array to two registers: neither may be changed in place afterwards."""
    if not isinstance(operand, Register):
        return step
    number = program.number(operand)

    def shared(g: Group) -> None:
        if g.owned:
            g.owned.discard(number)
        step(g)

    return shared


def address_reader(program: Program, operand: Operand, bits: int = 64) -> Read:
    """Reads [base + offset] as 64-bit signed addresses (the kind that NumPy indexes with)."""
    if not isinstance(operand, Address):
        raise PtxError(f"not an address: {operand}")
    base, offset = operand.base, operand.offset
    if isinstance(base, Symbol):
        place = np.array([program.address(base) + offset], np.int64)
        place.flags.writeable = False
        return lambda g: place
    if isinstance(base, Register) and program.kind(base).bits == 64:
        inner = bits_reader(program, base, SIGNED[64])
        if offset == 0:
            return inner
        add = np.int64(offset)
        return lambda g: inner(g) + add
    narrow = bits_reader(program, base, UNSIGNED[32])
    # Shared addresses have 32 bits; a negative offset wraps there.
    add32 = np.uint32(offset & 0xFFFFFFFF)
    if offset == 0:
        return lambda g: narrow(g).astype(np.int64)
    return lambda g: (narrow(g) + add32).astype(np.int64)


def need(instruction: Instruction, condition: bool, problem: str = "") -> None:
    """Refuse a form of an opcode that the simulator does not have, with its text and line."""
    if not condition:
        reason = f": {problem}" if problem else ""
        raise PtxError(f"the simulator does not have `{instruction.text}`{reason} ({instruction.location})")
