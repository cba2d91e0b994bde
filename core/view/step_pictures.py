"""A replayed step as pictures: each tensor when it is written, and those that each node read and wrote.

Memory is used again within a step, and gradients are written over one another. So a picture is taken when an op has
written the tensor, and an op reads the tensor's latest picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.engine import TraceEvent
from core.graph import Graph, Node
from core.plan import Buffer, Plan, Step
from core.view.pictures import picture
from core.view.replay import ReplayedStep

Array = np.ndarray[Any, Any]
Passed = Callable[[Node], list[str]]  # a node's input values whose gradient is its output's
Roles = dict[str, int]  # role of a tensor -> its picture


@dataclass
class Traced:
    """The pictures of a step and their places: values and gradients by value, saved tensors by node and role,
    parameters with their gradient and update by name. `moments` has an entry for each op that ran."""

    pictures: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, int] = field(default_factory=dict)
    gradients: dict[str, int] = field(default_factory=dict)
    written: dict[str, Roles] = field(default_factory=dict)  # node -> input value -> its gradient after that node
    saved: dict[str, Roles] = field(default_factory=dict)
    parameters: dict[str, Roles] = field(default_factory=dict)  # name -> "value", "gradient", "update"
    integers: dict[str, Array] = field(default_factory=dict)  # values that hold integers, as they are
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of saved tensors, "node.role"
    places: dict[Buffer | None, str] = field(default_factory=dict)  # buffer -> the value whose gradient is in it
    readers: Counter[str] = field(default_factory=Counter)  # value -> how many nodes read it
    moments: list[dict[str, str]] = field(default_factory=list)


def traced(
    step: ReplayedStep, plan: Plan, side_of: Callable[[str], int], passed: Passed, with_batch: bool = True
) -> Traced:
    """The first micro-step in pictures, and the parameters' gradients and updates of the whole step.

    side_of: cells of a side, by the name of a node. passed: see `settle`. with_batch: whether the batch itself is
    shown, which is text.
    """
    out = Traced()
    for name, array in step.batches[0].items() if with_batch else ():
        out.values[name] = add(out, array, side_of(""))
        out.integers[name] = array
    events = (event for micro, event in step.events() if micro == 0)
    for planned, event in zip(plan.steps, events, strict=True):
        if planned.node is None:
            take_sum(out, event, planned, side_of(""))
            continue
        out.moments.append({"kind": event.kind, "node": event.node, "op": event.op, "variant": event.variant})
        take(out, event, planned, plan, side_of(event.node))
    settle(out, plan.graph, passed)
    take_parameters(out, step, side_of)
    return out


def add(out: Traced, array: Array, side: int) -> int:
    """A new picture; its number."""
    out.pictures.append(picture(array, side))
    return len(out.pictures) - 1


def take(out: Traced, event: TraceEvent, planned: Step, plan: Plan, side: int) -> None:
    """The tensors that one op wrote."""
    node, tensors = planned.node, event.tensors
    assert node is not None
    if event.kind in ("forward", "forward_backward"):
        for role, value in node.outputs.items():
            if (array := tensors.get(role)) is not None:
                out.values[value] = add(out, array, side)
                if array.dtype.kind in "iu":
                    out.integers[value] = array.copy()
        for role in plan.choices[node.name].variant.saved:
            if (array := tensors.get(role)) is not None:
                out.saved.setdefault(node.name, {})[role] = add(out, array, side)
                out.shapes[f"{node.name}.{role}"] = array.shape
    if "backward" in event.kind:
        alias = plan.choices[node.name].variant.alias
        written = out.written.setdefault(node.name, {})
        for role, value in node.inputs.items():
            source = node.inputs.get(alias.get(f"d{role}", "")[1:], "")
            if (array := tensors.get(f"d{role}")) is not None:
                out.gradients[value] = written[value] = add(out, array, side)
                out.places[planned.tensors[f"d{role}"]] = value
            elif source in written:
                out.gradients[value] = written[value] = written[source]


def take_sum(out: Traced, event: TraceEvent, planned: Step, side: int) -> None:
    """A gradient that the plan moves or sums: the target has the sum over all readers of a value."""
    target, source = planned.tensors.get("target"), planned.tensors.get("source")
    value = out.places.get(source) or out.places.get(target)
    array = event.tensors.get("target")
    if value is not None and array is not None:
        out.gradients[value] = add(out, array, side)
        out.places[target] = value


def settle(out: Traced, graph: Graph, passed: Passed) -> None:
    """Gradients that no op wrote since they are those of another value. passed: `core.view.node_rows.passing`.

    So an output's is that of an input that nothing else reads: fusion may leave out the output's own, or a part of it.
    """
    out.readers.update(value for node in graph.nodes for value in node.inputs.values())
    for node in reversed(graph.nodes):
        values, output = passed(node), next(iter(node.outputs.values()))
        only = [v for v in values if out.readers[v] == 1 and v in out.gradients]
        if only:
            out.gradients[output] = out.gradients[only[0]]
        if output in out.gradients:
            for value in values:
                out.gradients.setdefault(value, out.gradients[output])


def take_parameters(out: Traced, step: ReplayedStep, side_of: Callable[[str], int]) -> None:
    """Every parameter before the update, its gradient over all micro-steps, and its change by the update."""
    sides = {name: side_of(parameter.node) for name, parameter in step.engine.graph.parameters.items()}
    kinds: dict[str, Mapping[str, Array]] = {
        "value": step.parameters(),
        "gradient": step.gradients(),
        "update": step.updates(),
    }
    for kind, arrays in kinds.items():
        for name, array in arrays.items():
            out.parameters.setdefault(name, {})[kind] = add(out, array, sides[name])
