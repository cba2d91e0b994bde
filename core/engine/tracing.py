"""A micro-step run step by step, with the tensors of each step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.engine.batch import Array
from core.plan import trimmed
from core.plan.record import SCALE_BY, RecordedStep
from core.plan.step_tensors import written_by

if TYPE_CHECKING:
    from core.device.protocol import Device


@dataclass(frozen=True)
class TraceEvent:
    """One step of a traced run: `kind` ("forward", "backward", "add", ...), the node's name ("" for add, copy and
    fill, which are no node's), its op, the variant's name, every tensor it saw after it ran, by schema name, without
    padding, and the names of those that it wrote for others: outputs and gradients, without its own saved tensors."""

    kind: str
    node: str
    op: str
    variant: str
    tensors: dict[str, Array | None]
    written: tuple[str, ...]


def events(recorded: Iterable[RecordedStep], device: Device) -> Iterator[TraceEvent]:
    """Run recorded steps one by one: the event of each, but for the loss terms' parts of the loss."""
    for one in recorded:
        step, t = one.step, one.t
        device.run(one.commands)
        if step.kind in (SCALE_BY, "objective"):
            continue
        tensors = {}
        for name, buffer in step.tensors.items():
            if name not in ("workspace", "counters"):
                tensor = getattr(t, name)
                array = tensor if tensor is None or isinstance(tensor, np.ndarray) else device.download(tensor)
                tensors[name] = None if array is None or buffer is None else trimmed(array, buffer.shape)
        node, op = (step.node.name, step.node.op.name) if step.node else ("", "")
        variant = step.variant.name if step.variant else ""
        yield TraceEvent(step.kind, node, op, variant, tensors, tuple(n for n in written_by(step) if n in tensors))
