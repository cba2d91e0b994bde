"""The tensors of a step: the bytes that it moves, and the names of those that it writes."""

from __future__ import annotations

from core.plan.steps import Step


def nbytes_of(step: Step) -> int:
    """Bytes that a step reads and writes, each tensor once."""
    return sum(b.nbytes for b in set(step.tensors.values()) if b is not None)


def written_by(step: Step) -> tuple[str, ...]:
    """Schema names of the tensors that a step writes for other nodes: outputs and gradients."""
    if step.node is None:
        return ("target",)
    op = step.node.op
    outputs = tuple(op.outputs) if step.kind != "backward" else ()
    gradients = tuple(f"d{name}" for name in (*op.inputs, *op.params)) if "backward" in step.kind else ()
    return outputs + gradients


def all_written_by(step: Step) -> tuple[str, ...]:
    """Schema names of all tensors that a step writes, those saved for its own backward and those updated in place
    included."""
    saved = tuple(step.variant.saved) if step.variant is not None and step.kind != "backward" else ()
    if step.node is None:
        return (*written_by(step), *saved)
    op = step.node.op
    record = () if op.outputs or op.mutates else ("step",)  # an op without results writes the control record
    return (*written_by(step), *saved, *op.state, *op.mutates, *record)
