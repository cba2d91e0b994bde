"""Imports every module that fills the table of opcodes."""

from core.device.sim import arith, atomics, collectives, control, convert, copies, floats, mbarrier, move, tensor

__all__ = ["arith", "atomics", "collectives", "control", "convert", "copies", "floats", "mbarrier", "move", "tensor"]
