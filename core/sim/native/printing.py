"""`printf` of a kernel on the machine: C calls Python for each thread, which formats like the interpreter."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

from core.sim.machine.address_space import LONGEST_STRING, Memory
from core.sim.machine.c_format import c_format
from core.sim.ptx import state_spaces as spaces

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)
LOCAL, SHARED = spaces.LOCAL_WINDOW >> 40, spaces.SHARED_WINDOW >> 40


class OutsideError(Exception):
    """An address outside of all memory."""


@dataclass
class Printer:
    """Texts of a launch, in the order in which its threads print. local, shared_end: bytes of a thread's local and of a
    thread block's shared memory."""

    memory: Memory
    local: int
    shared_end: int
    texts: list[str] = field(default_factory=list)

    def callback(self) -> ctypes._FuncPointer:
        """vprintf(format, buffer) of a thread whose local and shared memory are there: how many arguments there were,
        or ~address for one that is outside of all memory."""

        def display(form: int, buffer: int, local: int, shared: int) -> int:
            at = [local or 0, shared or 0]
            try:
                text, count = c_format(
                    self._string(form, at), lambda offset, size: self._bytes(buffer + offset, size, at),
                    lambda address: self._string(address, at),
                )  # fmt: skip
            except OutsideError as error:
                return ~int(error.args[0])
            self.texts.append(text)
            return count

        return CALLBACK(display)

    def _bytes(self, address: int, count: int, at: list[int]) -> bytes:
        window, within = address >> 40, address & spaces.WINDOW_MASK
        if window == LOCAL and within + count <= self.local:
            return ctypes.string_at(at[0] + within, count)
        if window == SHARED and within + count <= self.shared_end:
            return ctypes.string_at(at[1] + within, count)
        region = self.memory.region(address)
        if window in (LOCAL, SHARED) or region is None or address + count > region.end:
            raise OutsideError(address)
        return self.memory.bytes[address : address + count].tobytes()

    def _string(self, address: int, at: list[int]) -> str:
        """The C string at a generic address."""
        text = bytearray()
        while len(text) < LONGEST_STRING and (one := self._bytes(address + len(text), 1, at)) != b"\0":
            text += one
        return text.decode("utf-8", "replace")
