"""The graph of a model: values, nodes, parameters. Data, and no more.

Shapes are settled sizes. A size made by `pad` is a `core.expr.Padded`, which remembers what it was padded from.
"""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass, field
from typing import Any

from core.errors import UsageError
from core.expr import trim, unpadded
from core.graph.document import ModelDocument
from core.op import Op
from core.roles import TARGETS, TOKENS, S, T


@dataclass(frozen=True)
class Value:
    """A tensor that flows between nodes.

    dtype: None (the activations' type), "acc", or a name of core.dtypes. bound: the exclusive upper bound of
    integer contents, None when unknown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str | None
    bound: int | None = None


@dataclass(frozen=True)
class Node:
    """An op in a graph. `name` is expanded (`h.3.qkv`) and is the name of its first output; others are `node.role`.

    inputs, outputs: role -> value name; an optional input that is absent is missing. params: role -> parameter
    name, present ones only; a tied one names its owner. attrs: settled. dims: every name that the op's patterns
    know, attrs included. where: the place in the file, "models/gpt2_124m.toml:25 [block.layer] qkv". parts: of a fused
    node, the nodes that it stands for.
    """

    name: str
    op: Op
    inputs: dict[str, str]
    outputs: dict[str, str]
    params: dict[str, str]
    attrs: dict[str, Any]
    dims: dict[str, Any]
    where: str = field(compare=False)
    parts: tuple[Node, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Parameter:
    """A parameter. init is settled ("normal(0.01)", "ones"); node and role name its owner."""

    name: str
    shape: tuple[int, ...]
    init: str
    decay: bool
    node: str
    role: str

    @property
    def size(self) -> int:
        """Elements that carry meaning: without padding."""
        return math.prod(trim(self.shape))

    @property
    def allocated(self) -> int:
        """Elements in memory: with padding."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Graph:
    """A model with every size settled. Nodes are in file order as far as dependencies allow.

    values: all of them, inputs included. loss: value name -> weight. dims: the model's [dims], evaluated.
    """

    name: str
    inputs: dict[str, Value]
    nodes: list[Node]
    values: dict[str, Value]
    parameters: dict[str, Parameter]
    dims: dict[str, Any]
    loss: dict[str, float]
    logits: str | None
    source: ModelDocument = field(compare=False, repr=False)

    @property
    def parameter_count(self) -> int:
        """Elements of all parameters without padding: the number that is published."""
        return sum(p.size for p in self.parameters.values())

    @property
    def allocated_count(self) -> int:
        """Elements of all parameters with padding."""
        return sum(p.allocated for p in self.parameters.values())

    @property
    def token_input(self) -> str:
        """The input that holds the tokens: "tokens", or else the only one of integers besides the targets.

        Raises UsageError where that leaves none or several.
        """
        others = [n for n, v in self.inputs.items() if n != TARGETS and v.dtype is not None and v.dtype != "acc"]
        if TOKENS in others or len(others) == 1:
            return TOKENS if TOKENS in others else others[0]
        held = f"which of {' and '.join(others)} holds" if others else "no input of integers holds"
        raise UsageError(f"{self.name}: {held} the tokens", hint=f'call the input that holds them "{TOKENS}"')

    @property
    def positions(self) -> int:
        """Tokens of the longest sequence: S, the learned positions, or T where the model has none; 0 without either."""
        return int(unpadded(self.dims.get(S, self.dims.get(T, 0))))

    def node(self, name: str) -> Node | None:
        """The node with this expanded name, or None."""
        return next((n for n in self.nodes if n.name == name), None)

    def find(self, glob: str) -> list[Node]:
        """The nodes whose expanded names match `glob`; `*` crosses dots."""
        return [n for n in self.nodes if fnmatch.fnmatchcase(n.name, glob)]
