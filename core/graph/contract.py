"""An op's contract with the values of a node's inputs: dtype, bounds of integers, padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import BuildError
from core.expr import described, evaluate, unpadded
from core.graph.draft import Draft
from core.graph.padding import padded_attribute, padded_input
from core.graph.types import Node, Value
from core.op import Pattern


def bound_of(pattern: Pattern, dims: Mapping[str, Any], where: str) -> int | None:
    """The exclusive upper bound of integer contents; None when there is none."""
    if pattern.bound is None:
        return None
    bound = evaluate(pattern.bound, dims, where)
    if not isinstance(bound, int) or bound < 1:
        raise BuildError(f'{where}: the bound "{pattern.bound}" is {bound}; expected a whole number of at least 1')
    return int(unpadded(bound))  # an id of a padded row is no id


def check_padding(draft: Draft, values: Mapping[str, Value], attrs: Mapping[str, Any], where: str) -> None:
    """Raise BuildError where a size is padded and the op does not declare that it handles padding there."""
    op = draft.op
    assert op is not None
    hint = 'use the size itself in place of pad(...); an op that handles padding there names it in its "padding"'
    if input_name := padded_input(op, {role: values[value].shape for role, value in draft.inputs.items()}):
        role, token, size = input_name
        raise BuildError(
            f'{where}: input {role} = {draft.inputs[role]} has {size} elements in "{token}" of '
            f'"{op.inputs[role].pattern.text}", {size.unpadded} of them contents and the rest padding, which '
            f'op "{op.name}" would count as contents',
            hint=hint,
        )
    if attribute := padded_attribute(op, attrs):
        key, size = attribute
        raise BuildError(
            f'{where}: attribute "{key}" is {size}, padded from {size.unpadded}; op "{op.name}" would count '
            "padding as contents",
            hint=hint,
        )


def check_contents(value: Value, pattern: Pattern, dims: Mapping[str, Any], where: str) -> None:
    """Raise BuildError if `value` has another dtype than the op takes, or larger integers."""
    if value.dtype != pattern.dtype:
        raise BuildError(
            f"{where}: takes {kind_of_contents(pattern.dtype)}, but {value.name} holds {kind_of_contents(value.dtype)}"
        )
    bound = bound_of(pattern, dims, where)
    if bound is not None and value.bound is not None and value.bound > bound:
        raise BuildError(
            f"{where}: takes integers below {pattern.bound} = {bound}, but {value.name} goes up to {value.bound - 1}"
        )


def negative_inputs(nodes: Iterable[Node], inputs: Iterable[str], targets: str) -> set[str]:
    """The inputs that may be negative: the targets, and inputs that the same ops alone read, in the targets' place."""
    places = {name: set[tuple[str, str]]() for name in inputs}
    for node in nodes:
        for role, value in node.inputs.items():
            if value in places:
                places[value].add((node.op.name, role))
    return {name for name, own in places.items() if own and own <= places.get(targets, set())}


def kind_of_contents(dtype: str | None) -> str:
    """A dtype as text."""
    return {None: "activations", "acc": "acc (a statistic or a loss)"}.get(dtype, str(dtype))


def described_value(value: Value) -> str:
    """Shape and dtype as text."""
    return f"{described(value.shape)} {kind_of_contents(value.dtype)}"
