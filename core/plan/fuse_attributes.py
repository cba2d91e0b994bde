"""A config's settings of fused ops: `[fuse]`, the attributes that it may set, and fused ops in `recompute`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.errors import BuildError, UsageError, did_you_mean
from core.graph import Graph, Node
from core.op import Op
from core.plan.choose import Chooser
from core.plan.steps import Request


def check_settings(fusion: Mapping[str, Any], ops: Mapping[str, Op], where: Callable[[str], str]) -> None:
    """UsageError for a name in `[fuse]` that is no fused op, or an attribute that is not its own or of another type.

    where: the place of a key such as "fuse.head_loss.chunk".
    """
    fused = [name for name, op in ops.items() if op.replaces]
    for name, setting in fusion.items():
        if name not in fused:
            raise UsageError(f"{where(f'fuse.{name}')}: no fused op of that name{did_you_mean(name, fused)}")
        for key, value in (setting if isinstance(setting, Mapping) else {}).items():
            check_attribute(ops[name], key, value, ops, where(f"fuse.{name}.{key}"))


def check_fused(
    graph: Graph, request: Request, nodes: list[Node], blocked: Mapping[str, set[str]], chooser: Chooser
) -> None:
    """UsageError for an entry of `[fuse]` for a fused op that no node runs as, and for one in `recompute`."""
    ops = {n.op.name for n in nodes}

    def why_not(name: str) -> str:
        op = chooser.registry.ops[name]
        if not chooser.candidates(op):
            return f"{name} has no variant for {chooser.runs}"
        if request.fusion.get(name) is False:
            return "[fuse] switches it off"
        if named := blocked.get(name):
            return f"the config names {' and '.join(sorted(named))}, which keeps their nodes apart"
        return f"no nodes of {graph.name} can run as it here: {op.replaces}"

    for name, setting in request.fusion.items():
        if name not in ops and isinstance(setting, Mapping) and setting:
            raise UsageError(f"[fuse] {name} sets {', '.join(setting)}, but {why_not(name)}")
    for name in request.recompute:
        if name not in ops and chooser.registry.ops[name].replaces:
            raise UsageError(f'[train] recompute "{name}": {why_not(name)}')


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
            f"{place}: {why}; [fuse] sets the attributes that {op.name} alone has: {', '.join(own) or 'nothing'}",
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
