"""The types of a plan: the request, steps in order, and the plan that holds them. Data, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import BuildError
from core.graph import Graph, Node
from core.op import Variant
from core.plan.buffers import Buffer

TRAIN, EVALUATE, GENERATE = "train", "evaluate", "generate"
AUTO = "auto"  # in place of a variant's name: the best one that can run
EXPLICIT = "only by name"  # why a variant of negative priority is not chosen
Tensor = Buffer | None


class Refused(BuildError):
    """A choice that a config or a recorded run named failed its check, so that nothing may take its place unasked."""


@dataclass(frozen=True)
class Choice:
    """The variant of a node, where the choice came from, and why the others were not taken."""

    variant: Variant
    why: str  # "auto" (the best guess), "shipped", "tuned", "recorded", or the config's line
    rejected: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None  # of `variant.configs`; None: its best guess, the first

    def config_for(self, t: Any) -> dict[str, Any]:
        """`t.config` for a launcher that sees `t`."""
        return first_config(self.variant, t) if self.config is None else dict(self.config)


def first_config(variant: Variant, t: Any) -> dict[str, Any]:
    """`t.config`: the variant's best guess, the first of its tile candidates; {} where it has none."""
    return next(iter(variant.configs(t)), {})


@dataclass(frozen=True)
class Request:
    """A request for a plan.

    kind: "train", "evaluate" or "generate". outputs: values that must be readable after the run; a training plan
    adds the loss terms. capacity: tokens that a decode session can hold (generate). recompute: op names whose
    forward runs again in backward. fusion: fused op -> False, or its own attrs. alias, in_place: False makes the
    plan do without, for tests.
    """

    kind: str
    outputs: tuple[str, ...] = ()
    capacity: int = 0
    recompute: tuple[str, ...] = ()
    fusion: Mapping[str, Any] = field(default_factory=dict)
    alias: bool = True
    in_place: bool = True


@dataclass
class Step:
    """One entry of a plan. kind: "forward", "recompute", "backward", "forward_backward" (a launcher of `variant`),
    or a primitive: "add", "copy" (target, source), "fill" (target with 0).

    flags: `add_dx`, and `add_dweight`, which is "later" for a parameter's first producer: false on the first
    micro-step. first_only: not part of later micro-steps.
    """

    kind: str
    node: Node | None
    variant: Variant | None
    tensors: dict[str, Tensor]
    flags: dict[str, bool | str] = field(default_factory=dict)
    first_only: bool = False


@dataclass
class Plan:
    """Steps in order, the buffers that they name, and the arena's size in bytes."""

    graph: Graph
    request: Request
    precision: str
    nodes: list[Node]
    choices: dict[str, Choice]  # by node name
    steps: list[Step]
    buffers: list[Buffer]
    values: dict[str, Buffer]  # requested outputs by value name
    seeds: dict[str, Buffer]  # the loss terms' gradients, written by the engine
    backward_from: int  # index of the first step of backward
    blocked_fusions: Mapping[str, set[str]]  # fused ops that the config kept out -> the ops in them that it names
    arena_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """Bytes that forward keeps for backward."""
        return sum(b.nbytes for b in self.in_arena if self.keeps(b))

    def keeps(self, buffer: Buffer) -> bool:
        """Whether forward keeps a buffer for backward; never in a plan without backward."""
        return self.backward_from < len(self.steps) and buffer.first < self.backward_from <= buffer.last

    @property
    def workspace_bytes(self) -> int:
        """The largest scratch that any step needs."""
        return max((b.nbytes for b in self.in_arena if b.role == "workspace"), default=0)

    @property
    def state_bytes(self) -> int:
        """Bytes of the states of a decode session: KV caches, and states of constant size."""
        return sum(b.nbytes for b in self.buffers if b.home == "state")

    @property
    def in_arena(self) -> list[Buffer]:
        return [b for b in self.buffers if b.home == "arena" and b.last >= 0]

    @property
    def random_rows(self) -> dict[str, int]:
        """Rows that each random op's node draws for: the leading sizes of its first input, all but the last one.

        A token may have several (one for each of its experts) or none: keys count these, so that micro-steps of the
        same rows draw the same numbers.
        """
        nodes = [n for n in self.nodes if "random" in n.op.uses]
        return {n.name: math.prod(self.graph.values[_first(n)].shape[:-1]) for n in nodes}


def _first(node: Node) -> str:
    """The value that a random op's rows are counted in: its first input, else its first output."""
    return next(iter(node.inputs.values()), node.name)
