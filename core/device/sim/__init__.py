"""Runs the PTX that NVRTC emits, on NumPy: every kernel on a machine without a GPU. It knows no op and no tensor.

parser -> program -> scheduler, with the opcodes' functions in one module per family.
"""

from core.device.sim.errors import KernelError, PtxError
from core.device.sim.memory import Memory
from core.device.sim.report import Report
from core.device.sim.simulator import Simulator

__all__ = ["KernelError", "Memory", "PtxError", "Report", "Simulator"]
