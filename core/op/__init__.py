"""The vocabulary: Op, Param, Variant, Reference, Optimizer, Schedule, and `t`, a launcher's tensors.

An op is a schema: named tensors with shape patterns, attributes, parameters. A variant is one way to compute it,
forward and backward together. The reference is the variant that defines the right results. Nothing here knows a graph,
a plan or a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.lazy import imports_of
from core.op.definition import NAME as NAME
from core.op.definition import Op as Op
from core.op.definition import Param as Param
from core.op.definition import State as State
from core.op.definition import Statement as Statement
from core.op.definition import parse_statements as parse_statements
from core.op.optimizer import Optimizer as Optimizer
from core.op.optimizer import Schedule as Schedule
from core.op.shape_pattern import ACC as ACC
from core.op.shape_pattern import ACTIVATION as ACTIVATION
from core.op.shape_pattern import Pattern as Pattern
from core.op.shape_pattern import Slot as Slot
from core.op.variant import Reference as Reference
from core.op.variant import Variant as Variant
from core.op.view import Tensors as Tensors
from core.op.view import TensorSpec as TensorSpec
from core.op.view import make_tensors as make_tensors
from core.step_record import CONTROL as CONTROL
from core.step_record import SLOT as SLOT

if TYPE_CHECKING:
    from core.op.gpu_launch import GpuLaunch as GpuLaunch
    from core.op.launch_types import CpuLaunch as CpuLaunch
    from core.op.launch_types import Launch as Launch

__getattr__ = imports_of(__name__)
