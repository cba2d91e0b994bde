"""The graph of a model: values, nodes, parameters. Data, and no more.

Shapes are settled sizes. A size made by `pad` is a `core.expr.Padded`, which remembers its size before padding.
"""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from core.errors import UsageError
from core.expr import trim, unpadded
from core.graph.document import ModelDocument
from core.op import Op
from core.roles import ROLES, TARGETS, TOKENS, B, S, T


@dataclass(frozen=True)
class Value:
    """A tensor that flows between nodes.

    dtype: None (the activations' type), "acc", or a name of core.dtypes. bound: the exclusive upper bound of
    integer contents, None when unknown. negative: whether an input's integers may be negative all the same.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str | None
    bound: int | None = None
    negative: bool = False


@dataclass(frozen=True)
class Node:
    """An op in a graph. `name` is expanded (`h.3.qkv`) and is the name of its first output; others are `node.role`.

    inputs, outputs: role -> value name; an optional input that is absent is missing. params: role -> parameter
    name, present ones only; a tied one names its owner. attrs: settled. dims: every name that the op's patterns
    know, attrs included. where: the place in the file, "models/gpt2_124m.toml:25 [block.layer] qkv". parts: of a fused
    node, the nodes that it replaces.
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

    values: all of them, inputs included. loss: value name -> weight; terms: value name -> its key in [loss]. dims: the
    model's [dims], evaluated, a list as a tuple. absent: parameters of nodes that do not exist in it.
    """

    name: str
    inputs: dict[str, Value]
    nodes: list[Node]
    values: dict[str, Value]
    parameters: dict[str, Parameter]
    dims: dict[str, Any]
    loss: dict[str, float]
    logits: str | None
    terms: dict[str, str]
    source: ModelDocument = field(compare=False, repr=False)
    absent: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @property
    def parameter_count(self) -> int:
        """Elements of all parameters without padding: the number that is published."""
        return sum(p.size for p in self.parameters.values())

    @property
    def allocated_count(self) -> int:
        """Elements of all parameters with padding."""
        return sum(p.allocated for p in self.parameters.values())

    @cached_property
    def roles(self) -> dict[str, str]:
        """Role -> the input that has it: by `roles` of the model, or by the input's own name."""
        named: dict[str, str] = self.source.document.get("roles", {})
        return {role: role for role in ROLES if role in self.inputs and role not in named} | named

    @property
    def token_input(self) -> str:
        """The input that holds the tokens. UsageError for a model that declares none."""
        return self._input_of(TOKENS)

    @property
    def target_input(self) -> str:
        """The input that holds the targets. UsageError for a model that declares none."""
        return self._input_of(TARGETS)

    def _input_of(self, role: str) -> str:
        if role in self.roles:
            return self.roles[role]
        raise UsageError(
            f"{self.name}: no input has the role {role}; its inputs are {', '.join(self.inputs) or 'none'}",
            hint=f'name the input "{role}", or declare it in the model: roles = {{ {role} = "INPUT" }}',
        )

    @property
    def batch(self) -> tuple[int, int]:
        """B and T: rows of a batch, and tokens of each; 1 where the model has no T."""
        return int(unpadded(self.dims[B])), int(unpadded(self.dims.get(T, 1)))

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
