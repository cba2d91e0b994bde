"""Imports every module that fills the table of opcodes."""

from core.sim.instructions import arith, atomics, collectives, control, copies, floats, mbarrier, move
from core.sim.instructions import conversions as convert
from core.sim.instructions import tensor_cores as tensor

__all__ = ["arith", "atomics", "collectives", "control", "convert", "copies", "floats", "mbarrier", "move", "tensor"]
