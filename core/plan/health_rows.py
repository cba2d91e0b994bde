"""The rows that [train] health_every records, one per tensor with its statistics, and the memory that they take.

The rows follow from the plan's steps and the parameters alone: tensors that steps write for others, then the gradient
of each parameter that trains, every parameter, and the update of those that train.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.device.measured import VALUES, elements
from core.dtypes import INTEGERS, itemsize, resolve
from core.expr import cdiv
from core.plan.buffers import ALIGN, Buffer
from core.plan.layout import ParameterLayout
from core.plan.step_tensors import written_by
from core.plan.steps import Plan, Step

if TYPE_CHECKING:
    from core.device.protocol import Device

GRADIENT, PARAMETER, UPDATE = "gradient", "parameter", "update"
UNSCALED = ("forward", PARAMETER, UPDATE)  # kinds of rows; the numbers of others are times the loss scale
NOTHING_NEW = ("fill", "recompute")  # kinds of steps: zeros, and repeated forwards
ROW = 8 * len(VALUES)  # bytes


@dataclass(frozen=True)
class HealthRow:
    """The tensor of a row of statistics. kind: "forward" or "backward" of a node, "add" or "copy" of gradients, or
    "gradient", "parameter", "update". node, op: of that step, "" for a sum or copy of gradients and for parameters.
    tensor: its schema name, its buffer's where there is no node, or the parameter's. size: its elements."""

    kind: str
    node: str
    op: str
    tensor: str
    size: int


def written(plan: Plan) -> Iterator[tuple[Step, list[tuple[str, Buffer]]]]:
    """Each step of the plan that writes tensors for others, and these tensors: (schema name, buffer in the arena)."""
    for step in plan.steps:
        named = ((name, step.tensors.get(name)) for name in written_by(step) if step.kind not in NOTHING_NEW)
        tensors = [(n, b) for n, b in named if b is not None and b.home == "arena" and b.dtype not in INTEGERS]
        if tensors:
            yield step, tensors


def parameter_groups(layout: ParameterLayout) -> list[tuple[str, list[str]]]:
    """(kind, its parameters) of the rows after the plan's, in order."""
    trains = [name for name, place in layout.places.items() if place.trains]
    return [(GRADIENT, trains), (PARAMETER, list(layout.places)), (UPDATE, trains)]


def health_rows(plan: Plan, layout: ParameterLayout) -> list[HealthRow]:
    """All rows of a training plan, in the order in which they are recorded."""
    rows = []
    for step, tensors in written(plan):
        for name, buffer in tensors:
            size, node = elements(buffer.shape), step.node
            if node is None:
                rows.append(HealthRow(step.kind, "", "", buffer.name, size))
            else:
                kind = "forward" if name in node.op.outputs else "backward"
                rows.append(HealthRow(kind, node.name, node.op.name, name, size))
    for kind, names in parameter_groups(layout):
        rows += [HealthRow(kind, "", "", name, elements(layout.places[name].shape)) for name in names]
    return rows


def launch_shapes(plan: Plan, layout: ParameterLayout) -> list[list[tuple[int, ...]]]:
    """The shapes of each launch: one for each step that writes, then one for each group of parameters."""
    steps = [[buffer.shape for _, buffer in tensors] for _, tensors in written(plan)]
    return [*steps, *([layout.places[name].shape for name in names] for _, names in parameter_groups(layout))]


def workspace_sizes(launches: Sequence[Sequence[tuple[int, ...]]], device: Device) -> list[int]:
    """Bytes of workspace of each launch, rounded up so that each starts aligned."""
    return [cdiv(device.statistics_bytes(shapes), ALIGN) * ALIGN for shapes in launches]


def copy_bytes(plan: Plan, layout: ParameterLayout) -> int:
    """Bytes of the parameters before the update, held in the arena while no plan uses it."""
    return layout.trainable * itemsize(resolve("acc", plan.precision))


def health_bytes(plan: Plan, layout: ParameterLayout, device: Device, columns: int) -> int:
    """Bytes of recording in addition to the plan's arena: its workspace, a column of rows, `columns` of them in the
    ring, and the parameters before the update as far as they are larger than the arena. 0 without columns."""
    if not columns:
        return 0
    launches = launch_shapes(plan, layout)
    rows = sum(map(len, launches))
    more = max(0, copy_bytes(plan, layout) - plan.arena_bytes)
    return sum(workspace_sizes(launches, device)) + ROW * rows * (1 + columns) + more
