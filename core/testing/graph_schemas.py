"""The roles of ops in a random model, read off their schemas: linear maps, tables, losses, and the types of inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import BuildError
from core.expr import Padded, unpadded
from core.graph import Graph, Node
from core.op import ACC, Op, Pattern

Shape = tuple[int, ...]


def the(role: str, candidates: Iterator[Op]) -> Op:
    op = next(candidates, None)
    if op is None:
        raise BuildError(f"no registered op is a {role}: a random model needs one")
    return op


def sizes_a_parameter(op: Op, attr: str) -> bool:
    return any(attr in pattern.tokens for pattern in op.param_patterns.values())


def required_sizes(op: Op) -> list[str]:
    return [k for k, v in op.attrs.items() if v is int and sizes_a_parameter(op, k)]


def sized(op: Op, sizes: Mapping[int, Any]) -> dict[str, Any]:
    """Attributes by the place of the sizes that they give to parameters."""
    return {name: sizes[place] for place, name in enumerate(required_sizes(op)) if place in sizes}


def is_linear(op: Op) -> bool:
    """One input of activations, and an output whose last size is an attribute."""
    first, out = [*op.inputs.values()], [*op.outputs.values()]
    sizes = required_sizes(op)
    return (
        len(first) == len(out) == len(sizes) == 1
        and first[0].pattern.dtype is None
        and out[0].pattern.tokens == (sizes[0],)
        and first[0].pattern.leading
    )


def is_table(op: Op) -> bool:
    """Integers in, activations out, with a bound that is an attribute."""
    first, out = [*op.inputs.values()], [*op.outputs.values()]
    return (
        len(first) == len(out) == 1
        and first[0].pattern.bound in op.attrs
        and first[0].pattern.leading
        and len(required_sizes(op)) == 2
    )


def is_criterion(op: Op) -> bool:
    """Activations and integers in, a number for each token out, without parameters."""
    inputs, out = [*op.inputs.values()], [*op.outputs.values()]
    shaped = len(out) == 1 and out[0].pattern.dtype == ACC and out[0].pattern.leading
    return shaped and len(inputs) == 2 and inputs[1].pattern.integer and not op.params


def takes(pattern: Pattern, value: tuple[Shape, str | None, int | None]) -> bool:
    shape, dtype, bound = value
    if dtype != pattern.dtype or (pattern.bound is not None and bound is None):
        return False
    return len(shape) >= len(pattern.tokens) if pattern.leading else len(shape) == len(pattern.tokens)


def feeds(made: Pattern, taken: Pattern) -> bool:
    if made.dtype != taken.dtype:
        return False
    return taken.leading or made.leading or len(made.tokens) == len(taken.tokens)


def padded(node: Node, graph: Graph) -> bool:
    shapes = [graph.values[v].shape for v in (*node.inputs.values(), *node.outputs.values())]
    return any(isinstance(n, Padded) for shape in shapes for n in shape)


def alike(a: Shape, b: Shape) -> bool:
    return a == b and [unpadded(n) for n in a] == [unpadded(n) for n in b]
