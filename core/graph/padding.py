"""Padded sizes that a node would read as contents: those that its op does not list in `padding`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.expr import Padded
from core.op import Op, Pattern


def padded_input(op: Op, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str, Padded] | None:
    """The first (input, token of its pattern, size) that is padded where `op` does not handle padding."""
    return _first(op, {role: op.inputs[role].pattern for role in shapes}, shapes)


def padded_parameter(op: Op, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str, Padded] | None:
    """The first (parameter, token of its pattern, size) that is padded where `op` does not handle padding."""
    return _first(op, op.param_patterns, shapes)


def padded_attribute(op: Op, attrs: Mapping[str, Any]) -> tuple[str, Padded] | None:
    """The first (attribute, size) that is padded where `op` does not handle padding."""
    padded = ((k, size) for k, size in attrs.items() if isinstance(size, Padded) and k not in op.padding)
    return next(padded, None)


def _first(
    op: Op, patterns: Mapping[str, Pattern], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, str, Padded] | None:
    for role, shape in shapes.items():
        tokens = patterns[role].tokens
        names = ("...",) * (len(shape) - len(tokens)) + tokens
        for name, size in zip(names, shape, strict=False):
            if isinstance(size, Padded) and name not in op.padding:
                return role, name, size
    return None
