"""A plan recorded on a device without memory, for figures and descriptions: only addresses are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.plan.buffers import Buffer
from core.plan.record import Pick, RecordedStep, control_record, record_step, record_steps
from core.plan.steps import Plan, Step

if TYPE_CHECKING:
    from core.device.protocol import Device


def on_paper(plan: Plan, device: Device, pick: Pick, steps: Sequence[Step] | None = None) -> list[RecordedStep]:
    """The first micro-step of a plan, or those `steps` of it, recorded on a device of which only addresses are used."""
    made: dict[Buffer, Any] = {}

    def tensor_of(buffer: Buffer) -> Any:
        if buffer not in made:
            made[buffer] = device.tensor(device.allocate(buffer.nbytes), 0, buffer.shape, buffer.dtype)
        return made[buffer]

    if steps is not None:
        return [record_step(plan, step, device, pick, tensor_of) for step in steps]
    return record_steps(plan, device, pick, tensor_of, control_record(device, plan.graph))
