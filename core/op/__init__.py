"""The vocabulary: Op, Param, Variant, Reference, Optimizer, Schedule, and `t`, a launcher's tensors.

An op is a schema: named tensors with shape patterns, attributes, parameters. A variant is one way to compute it,
forward and backward together. The reference is the variant that defines the right results. Nothing here knows a graph,
a plan or a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of
from core.op.definition import NAME, Op, Param, State, Statement, parse_statements
from core.op.optimizer import Optimizer, Schedule
from core.op.shape_pattern import ACC, ACTIVATION, Pattern, Slot
from core.op.variant import Reference, Variant
from core.op.view import Tensors, TensorSpec, make_tensors
from core.step_record import CONTROL, SLOT

if TYPE_CHECKING:
    from core.op.gpu_launch import GpuLaunch as GpuLaunch
    from core.op.launch_types import CpuLaunch as CpuLaunch
    from core.op.launch_types import Launch as Launch

__all__ = [
    "CpuLaunch",
    "GpuLaunch",
    "Launch",
    "ACC",
    "ACTIVATION",
    "CONTROL",
    "NAME",
    "Op",
    "Optimizer",
    "Param",
    "Pattern",
    "Reference",
    "SLOT",
    "Schedule",
    "Slot",
    "State",
    "Statement",
    "TensorSpec",
    "Tensors",
    "Variant",
    "make_tensors",
    "parse_statements",
]

TYPES = {"CpuLaunch": "core.op.launch_types", "GpuLaunch": "core.op.gpu_launch", "Launch": "core.op.launch_types"}

__getattr__ = imports_of(__name__, TYPES)
