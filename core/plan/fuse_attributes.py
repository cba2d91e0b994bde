"""The attributes of fused ops that `[fuse]` may set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import BuildError, UsageError, did_you_mean
from core.op import Op


def own_attrs(op: Op, ops: Mapping[str, Op]) -> list[str]:
    """The attributes of a fused op that none of its parts has: the only ones that cannot change the result."""
    parts = [ops[s.op] for s in op.statements if s.op in ops]
    return [a for a in op.attrs if a not in op.params and not any(a in p.attrs for p in parts)]


def check_attribute(op: Op, key: str, value: Any, ops: Mapping[str, Op], place: str) -> None:
    own = own_attrs(op, ops)
    if key not in own:
        holders = [s.op for s in op.statements if s.op in ops and key in ops[s.op].attrs]
        if holders:
            why = f'"{key}" belongs to {holders[0]}, which the model sets'
        elif key in op.params:
            why = f'"{key}" is {_part_of(op, key, ops)}, which the model sets'
        else:
            why = f"{op.name} has no such attribute{did_you_mean(key, own)}"
        raise UsageError(
            f"{place}: {why}; [fuse] sets what no part of {op.name} has: {', '.join(own) or 'nothing'}",
            hint="fusion computes the same values as the model's nodes",
        )
    try:
        op.settle_attr(key, value, {}, place)
    except BuildError as error:
        raise UsageError(error.message, hint=error.hint) from None


def _part_of(op: Op, param: str, ops: Mapping[str, Op]) -> str:
    """A parameter of a fused op by the part that has it: "the bias of matmul"."""
    for statement in op.statements:
        if param in statement.arguments and statement.op in ops:
            part = ops[statement.op]
            return f"the {[*part.inputs, *part.params][statement.arguments.index(param)]} of {part.name}"
    return "a parameter"
