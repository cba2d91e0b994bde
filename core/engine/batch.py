"""A batch, checked by a graph's inputs: its sizes, and the number of targets that a mean over it divides by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.errors import DataError, did_you_mean
from core.expr import described
from core.graph import Graph, ModelDocument, Value
from core.op import Pattern
from core.roles import TARGETS, B

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]  # graph input -> integers, or numbers where the input declares activations
Seeds = Mapping[str, Array]  # loss term -> d objective / d term, in the term's shape
NO_SEEDS: Seeds = {}


def input_dims_of(model: ModelDocument) -> dict[str, Sequence[str]]:
    """Graph input -> its dims by name, such as B and T, or arithmetic over them."""
    return {n: Pattern.parse(text, f"inputs.{n}").tokens for n, text in model.document["inputs"].items()}


def dims_of(batch: Batch, graph: Graph, input_dims: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """B and T as the batch has them, by the patterns of the graph's inputs.

    Raises DataError for an input that the graph does not have, or sizes that contradict one another.
    """
    dims: dict[str, int] = {}
    for name, array in batch.items():
        if name not in graph.inputs:
            raise DataError(f'{graph.name} has no input "{name}"{did_you_mean(name, graph.inputs)}')
        tokens = input_dims[name]
        if array.ndim != len(tokens):
            raise DataError(f"input {name} has shape {array.shape}, expected ({', '.join(tokens)})")
        for token, size in zip(tokens, array.shape, strict=True):
            if not token.isidentifier():
                continue  # arithmetic: compared with the shape that the other dims give
            if dims.setdefault(token, size) != size:
                raise DataError(f"input {name} has {token} = {size}, another one has {dims[token]}")
    return dims


def by_input(batch: Batch, graph: Graph) -> dict[str, Array]:
    """A batch by role as one by the graph's inputs."""
    return {graph.roles.get(key, key): values for key, values in batch.items()}


def feeds_of(graph: Graph) -> dict[str, Value]:
    """Role, or input without one -> the graph's input. DataError for one without B: a batch cannot hold it."""
    roles = {name: role for role, name in graph.roles.items()}
    for name, dims in input_dims_of(graph.source).items():
        if list(dims[:1]) != [B]:
            raise DataError(
                f"model {graph.name}: input {name} is ({', '.join(dims)}); data feeds inputs whose first size is {B}, "
                "a row of the batch",
                hint="make it a parameter, or give it that size",
            )
    return {roles.get(name, name): value for name, value in graph.inputs.items()}


def count_of(batch: Batch, graph: Graph) -> int:
    """The targets >= 0; for a model without targets, the elements of its largest loss term."""
    targets = graph.roles.get(TARGETS, "")
    if targets in batch:
        return int((batch[targets] >= 0).sum())
    return max((math.prod(graph.values[term].shape) for term in graph.loss), default=1)


def check_same_parameters(graph: Graph, expected: Graph, sizes: Sequence[tuple[str, int]]) -> None:
    """DataError where a graph, which has these sizes of dims, has parameters of other shapes than the expected one."""
    for name, parameter in graph.parameters.items():
        if parameter.shape != expected.parameters[name].shape:
            listed = ", ".join(f"{dim} = {size}" for dim, size in sizes)
            raise DataError(
                f"with {listed}, {name} of {expected.name} would be {described(parameter.shape)}, and it is "
                f"{described(expected.parameters[name].shape)}",
                hint="the sizes of a batch, except B and T, are the model's",
            )
