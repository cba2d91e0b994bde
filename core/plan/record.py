"""Steps of a plan as recorded launches: a launcher is called once, with tensors at fixed addresses.

An engine records on its device to replay; core.plan.paper, for plans that only are described.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.dtypes import SCALED
from core.graph import Graph
from core.op import CONTROL, SLOT, Tensors, make_tensors
from core.plan.buffers import Buffer
from core.plan.steps import Plan, Step

if TYPE_CHECKING:
    from core.device.protocol import Device

Pick = Callable[..., Any]
SCALE_BY = "scale_by"  # of a step: a loss term's gradient times the loss scale
TensorOf = Callable[[Buffer], Any]


@dataclass(frozen=True)
class RecordedStep:
    """A step with its `t` and the commands that the device replays for it."""

    step: Step
    t: Tensors
    commands: list[Any]


def record_steps(
    plan: Plan, device: Device, pick: Pick, tensor_of: TensorOf, control: Any, first: bool = True
) -> list[RecordedStep]:
    """A micro-step, recorded: the first of a training step, or a later one; then each loss term's part of the loss.
    Where gradients have a loss scale, those of the loss terms are multiplied by it before all else.

    pick: `Chooser.pick`. tensor_of: the tensor on `device` of each buffer. control: the control record on `device`.
    """
    steps = [s for s in plan.steps if first or not s.first_only]
    recorded = [record_step(plan, step, device, pick, tensor_of, first) for step in steps]
    own = own_slots(plan.graph)
    if plan.precision in SCALED:
        scaled = [device.scale_by(tensor_of(seed), control) for seed in plan.seeds.values()]
        recorded = [
            *(RecordedStep(Step(SCALE_BY, None, None, {}), Tensors(), commands) for commands in scaled),
            *recorded,
        ]
    for value, seed in plan.seeds.items():
        for slot in (SLOT["loss"], *own.get(value, ())):
            dot = device.dot_into(control, slot, tensor_of(plan.values[value]), tensor_of(seed))
            recorded.append(RecordedStep(Step("objective", None, None, {}), Tensors(), dot))
    return recorded


def record_step(
    plan: Plan, step: Step, device: Device, pick: Pick, tensor_of: TensorOf, first: bool = True
) -> RecordedStep:
    """One step of a plan, recorded."""
    tensors = {name: None if b is None else tensor_of(b) for name, b in step.tensors.items()}
    if step.node is None or step.variant is None:
        primitive: Callable[..., list[Any]] = getattr(device, step.kind)
        arguments = [0.0] if step.kind == "fill" else [tensors["source"]]
        return RecordedStep(step, Tensors(**tensors), primitive(tensors["target"], *arguments))
    flags: dict[str, Any] = {f"add_d{r}": False for r in (*step.node.op.inputs, *step.node.op.params)}
    for name, flag in step.flags.items():
        flags[name] = not first if flag == "later" else bool(flag)
    workspace, counters = tensors.pop("workspace", None), tensors.pop("counters", None)
    t = make_tensors(step.node.dims, tensors, **flags, node=step.node.name)
    t.config = plan.choices[step.node.name].config_for(t)
    method = "forward" if step.kind in ("forward", "recompute") else step.kind
    return RecordedStep(step, t, device.record(step.variant, method, t, pick, workspace, counters))


def own_slots(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Loss term -> the slot of its own part of the loss, after those of `CONTROL`; none where it is the only term."""
    return {value: (len(CONTROL) + i,) for i, value in enumerate(graph.loss)} if len(graph.loss) > 1 else {}


def control_record(device: Device, graph: Graph) -> Any:
    """Memory for the control record: the numbers of a step, `core.step_record.CONTROL`, in f64; then each loss term's
    own part of the loss, where there are several."""
    slots = len(CONTROL) + len(own_slots(graph))
    return device.tensor(device.allocate(8 * slots), 0, (slots,), "f64")
