"""What runs, in which order, on which tensors: forward, then backward with the gradient contract.

The order of decisions: nodes that the request needs -> fusion -> variants -> forward steps -> backward steps in
reverse, where the first consumer of a value writes its gradient and later ones add -> offsets in the arena.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.dtypes import resolve
from core.errors import BuildError, UsageError, did_you_mean
from core.graph import Graph, Node
from core.op import Op, Pattern, Variant
from core.plan.backward import Backward
from core.plan.choose import Choice, Chooser, Refused, specs
from core.plan.fuse import FusionRules, check_fusion, fuse
from core.plan.layout import ParameterLayout
from core.plan.memory import FOREVER, Buffer, alive, place

TRAIN, EVALUATE, GENERATE = "train", "evaluate", "generate"
Tensor = Buffer | None


@dataclass(frozen=True)
class Request:
    """What a plan is for.

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

    @property
    def nbytes(self) -> int:
        """Bytes that the step reads and writes, each tensor once."""
        return sum(b.nbytes for b in set(self.tensors.values()) if b is not None)

    @property
    def written(self) -> tuple[str, ...]:
        """Schema names of what the step writes for other nodes: outputs and gradients."""
        if self.node is None:
            return ("target",)
        op = self.node.op
        outputs = tuple(op.outputs) if self.kind != "backward" else ()
        gradients = tuple(f"d{name}" for name in (*op.inputs, *op.params)) if "backward" in self.kind else ()
        return outputs + gradients

    @property
    def writes(self) -> tuple[str, ...]:
        """Schema names of all tensors that the step writes, those saved for its own backward included."""
        saved = tuple(self.variant.saved) if self.variant is not None and self.kind != "backward" else ()
        state = tuple(self.node.op.state) if self.node is not None else ()
        return (*self.written, *saved, *state)


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
    apart: Mapping[str, set[str]]  # fused ops that the config kept out -> the ops in them that it names
    arena_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """Bytes that forward keeps for backward."""
        return sum(b.nbytes for b in alive(self.in_arena, self.backward_from) if b.first < self.backward_from)

    @property
    def workspace_bytes(self) -> int:
        """The largest scratch that any step needs."""
        return max((b.nbytes for b in self.in_arena if b.role == "workspace"), default=0)

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

    @property
    def traffic(self) -> int:
        """Bytes read and written by all steps."""
        return sum(step.nbytes for step in self.steps)


def _first(node: Node) -> str:
    """The value that a random op's rows are counted in: its first input, else its first output."""
    return next(iter(node.inputs.values()), node.name)


def make_plan(graph: Graph, request: Request, chooser: Chooser, layout: ParameterLayout) -> Plan:
    """The plan for `request`. Raises BuildError when a node cannot run or cannot be differentiated."""
    _check_request(graph, request, chooser)
    return Planner(graph, request, chooser, layout).plan()


def _check_request(graph: Graph, request: Request, chooser: Chooser) -> None:
    for value in request.outputs:
        if value not in graph.values:
            raise UsageError(f'{graph.name} has no value "{value}"{did_you_mean(value, graph.values)}')
    for op in request.recompute:
        known = sorted({n.op.name for n in graph.nodes})
        fused = sorted(name for name, found in chooser.registry.ops.items() if found.replaces)
        if op not in (*known, *fused):
            known += fused
            raise UsageError(f'[train] recompute "{op}": {graph.name} has no node of that op{did_you_mean(op, known)}')
    check_fusion(request.fusion, chooser.registry.ops, lambda key: "[fuse] " + " ".join(key.split(".")[1:]))


def _check_decode(graph: Graph, nodes: list[Node]) -> None:
    """BuildError unless every node can go on from a cache and give what it gives for all tokens at once."""
    for node in nodes:
        why = node.op.why_no_decode(node.dims) or _ignored_input(node) or _missing_input(node, graph)
        if why:
            raise BuildError(
                f"{graph.name} cannot generate: {node.where}, node {node.name}: {why}",
                hint="a model that generates looks at earlier tokens only; sample_every = 0 trains without samples",
            )


def _ignored_input(node: Node) -> str | None:
    """Why an optional input keeps a node from decoding: it says something of tokens that lie in the cache by then."""
    if not (node.op.state or "start" in node.op.uses):
        return None
    ignored = [r for r in node.inputs if node.op.inputs[r].optional and r not in node.op.decodes]
    return f'"{ignored[0]}" is connected, which {node.op.name} does not look at while decoding' if ignored else None


def _missing_input(node: Node, graph: Graph) -> str | None:
    """Why an input of the graph keeps a node from decoding: generation appends tokens, and gives nothing else."""
    missing = [v for v in node.inputs.values() if v in graph.inputs and v != graph.token_input]
    return f'it reads the input "{missing[0]}", and generation gives "{graph.token_input}" only' if missing else None


class Planner:
    """Builds one plan; its attributes are what the decisions so far have settled."""

    def __init__(self, graph: Graph, request: Request, chooser: Chooser, layout: ParameterLayout) -> None:
        self.graph, self.request, self.chooser, self.layout = graph, request, chooser, layout
        self.precision = chooser.precision
        self.training = request.kind == TRAIN
        self.wanted = set(request.outputs) | (set(graph.loss) if self.training else set())
        self.steps: list[Step] = []
        self.buffers: list[Buffer] = []
        self.trainable = {p for p, where in layout.places.items() if where.trains} if self.training else set()
        self.needs = self._values_that_need_gradients()
        self.reach = self._values_that_reach_the_loss() if self.training else set()
        live = self._live(graph.nodes)
        if request.kind == GENERATE:
            _check_decode(graph, live)
        self.apart: dict[str, set[str]] = {}
        self.nodes = self._fused(live)
        self.choices = {n.name: chooser.choose(n, graph, request.kind, self.differentiated(n)) for n in self.nodes}
        self.makers = {v: n for n in self.nodes for v in n.outputs.values()}
        used = {v for n in self.nodes for v in n.inputs.values()}
        self.inputs = {
            v: self.buffer(v, graph.inputs[v].shape, graph.inputs[v].dtype, "input")
            for v in graph.inputs
            if v in used or v in self.wanted
        }
        self.params = {p: self.buffer(p, w.shape, None, "param") for p, w in layout.places.items()}
        self.param_grads = {p: self.buffer("d" + p, layout.places[p].shape, "acc", "grad") for p in self.trainable}
        self.current: dict[str, Buffer] = dict(self.inputs)  # value -> the buffer that holds it now
        self.saved: dict[str, dict[str, Buffer]] = {}  # node -> saved tensors
        self.start = self._start_buffer()
        self.keys: dict[str, Buffer] = {}
        self.states: dict[str, dict[str, Buffer]] = {}

    # --- which nodes, and which variants ---------------------------------------------------------------------

    def _live(self, nodes: list[Node]) -> list[Node]:
        """The nodes that the request needs: for its outputs, or because they keep state."""
        live, kept = set(self.wanted), []
        for node in reversed(nodes):
            keeps_state = self.request.kind == GENERATE and bool(node.op.state)
            if keeps_state or live & set(node.outputs.values()):
                kept.append(node)
                live |= set(node.inputs.values())
        return kept[::-1]

    def _values_that_need_gradients(self) -> set[str]:
        needs: set[str] = set()
        for node in self.graph.nodes:
            if self.trainable & set(node.params.values()) or needs & set(node.inputs.values()):
                needs |= {v for r, v in node.outputs.items() if not node.op.outputs[r].pattern.integer}
        return needs

    def _values_that_reach_the_loss(self) -> set[str]:
        reach = set(self.graph.loss)
        for node in reversed(self.graph.nodes):
            if reach & set(node.outputs.values()):
                reach |= {v for r, v in node.inputs.items() if not node.op.inputs[r].pattern.integer}
        return reach

    def differentiated(self, node: Node) -> bool:
        """Whether this node's backward must run: on the way from the loss to something that trains."""
        if not self.training or not self.reach & set(node.outputs.values()):
            return False
        needed = bool(self.trainable & set(node.params.values()) or self.needs & set(node.inputs.values()))
        if needed and not node.op.gradient:
            raise BuildError(
                f'{node.where}: node {node.name}: op "{node.op.name}" has no gradient, and trainable parameters lie '
                "behind it",
                hint="freeze those parameters ([train] freeze), or take the node out of the loss's way",
            )
        return needed

    def _fused(self, nodes: list[Node]) -> list[Node]:
        recompute, chooser, kind = set(self.request.recompute), self.chooser, self.request.kind

        def named(node: Node) -> bool:
            return node.op.name in recompute or chooser.explicit(node, kind) is not None

        def why_not(node: Node) -> str | None:
            if chooser.explicit(node, kind) is not None:
                return None
            try:
                chooser.choose(node, self.graph, kind, self.differentiated(node))
            except Refused:
                raise
            except BuildError as error:
                return error.message
            return None

        def rank(op: Op) -> tuple[int, int, str]:
            best = max((v.priority for v in chooser.candidates(op)), default=-1)
            return -len(op.statements), -best, op.name

        patterns = []
        for op in sorted((o for o in chooser.registry.ops.values() if o.replaces), key=rank):
            setting = self.request.fusion.get(op.name, True)
            if setting is not False and chooser.candidates(op):
                patterns.append((op, setting if isinstance(setting, Mapping) else {}))
        rules = FusionRules(patterns, frozenset(self.wanted), named, why_not, self.apart)
        found = fuse(self.graph, nodes, rules)
        if self.training:
            self._check_fused(found)
        return found

    def _check_fused(self, nodes: list[Node]) -> None:
        """UsageError where the config sets something of a fused op, and no nodes of this training plan become one."""
        ops = {n.op.name for n in nodes}
        for name, setting in self.request.fusion.items():
            if name not in ops and isinstance(setting, Mapping) and setting:
                raise UsageError(f"[fuse] {name} sets {', '.join(setting)}, but {self._why_not_fused(name)}")
        for name in self.request.recompute:
            if name not in ops and self.chooser.registry.ops[name].replaces:
                raise UsageError(f'[train] recompute "{name}": {self._why_not_fused(name)}')
        self.chooser.check_applied(self.graph, nodes)

    def _why_not_fused(self, name: str) -> str:
        op = self.chooser.registry.ops[name]
        if not self.chooser.candidates(op):
            return f"{name} has no variant for {self.chooser.runs}"
        if self.request.fusion.get(name) is False:
            return "[fuse] switches it off"
        if named := self.apart.get(name):
            return f"the config names {' and '.join(sorted(named))}, which keeps their nodes apart"
        return f"no nodes of {self.graph.name} can run as it here: {op.replaces}"

    # --- buffers and steps -----------------------------------------------------------------------------------

    def buffer(
        self, name: str, shape: Sequence[int], dtype: str | None, home: str = "arena", role: str = "activation"
    ) -> Buffer:
        buffer = Buffer(name, tuple(shape), resolve(dtype, self.precision), home, role)
        self.buffers.append(buffer)
        return buffer

    def gradient(self, value: str, role: str = "gradient") -> Buffer:
        found = self.graph.values[value]
        return self.buffer(("tmp.d" if role == "temporary" else "d") + value, found.shape, found.dtype, role=role)

    def _start_buffer(self) -> Buffer | None:
        if self.request.kind != GENERATE:
            return None
        rows = next((v.shape[0] for v in self.inputs.values()), 0)  # a prefill of a model without state runs nothing
        return self.buffer("start", (rows,), "i32", "start") if rows else None

    def step(
        self,
        kind: str,
        node: Node | None,
        variant: Variant | None,
        tensors: dict[str, Tensor],
        flags: dict[str, bool | str] | None = None,
        first_only: bool = False,
    ) -> None:
        for buffer in tensors.values():
            if buffer is not None:
                buffer.use(len(self.steps))
        self.steps.append(Step(kind, node, variant, tensors, flags or {}, first_only))

    def extras(self, node: Node, variant: Variant) -> dict[str, Tensor]:
        """Workspace, counters, and what the op uses: `start`, `key`, state."""
        extras: dict[str, Tensor] = {}
        t = specs(node, self.graph, self.precision)
        t.config = self.choices[node.name].config_for(t)
        if nbytes := variant.workspace(t):
            extras["workspace"] = self.buffer(f"{node.name}.workspace", (nbytes,), "u8", role="workspace")
        if count := variant.counters(t):
            extras["counters"] = self.buffer(f"{node.name}.counters", (count,), "u32", "counter")
        if "start" in node.op.uses:
            extras["start"] = self.start
        if "random" in node.op.uses:
            if self.training and node.name not in self.keys:
                self.keys[node.name] = self.buffer(f"{node.name}.key", (4,), "u32", "key")
            extras["key"] = self.keys.get(node.name)
        for role, slot in node.op.state.items():
            if self.request.kind != GENERATE:
                extras[role] = None
                continue
            states = self.states.setdefault(node.name, {})
            if role not in states:
                shape = slot.pattern.shape({**node.dims, "S": self.request.capacity}, f"{node.name}.{role}")
                states[role] = self.buffer(f"{node.name}.{role}", shape, slot.pattern.dtype, "state")
            extras[role] = states[role]
        return extras

    def forward(self, node: Node, kind: str) -> None:
        variant = self.choices[node.name].variant
        tensors = self.values_read(node)
        tensors |= self.new_outputs(node) | self.new_saved(node, variant) | self.extras(node, variant)
        self.step(kind, node, variant, tensors)

    def values_read(self, node: Node) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = dict.fromkeys(node.op.inputs)
        tensors |= {r: self.current[v] for r, v in node.inputs.items()}
        tensors |= {p: self.params[node.params[p]] if p in node.params else None for p in node.op.params}
        return tensors

    def new_outputs(self, node: Node) -> dict[str, Tensor]:
        for value in node.outputs.values():
            found = self.graph.values[value]
            self.current[value] = self.buffer(value, found.shape, found.dtype)
        return {r: self.current[v] for r, v in node.outputs.items()}

    def new_saved(self, node: Node, variant: Variant) -> dict[str, Tensor]:
        where = f"{variant.op}.{variant.name}, saved"
        made: dict[str, Buffer] = {}
        for role, text in variant.saved.items():
            pattern = Pattern.parse(text, where)
            shape = pattern.shape(node.dims, f"{where} {role}")
            made[role] = self.buffer(f"{node.name}.{role}", shape, pattern.dtype, role="saved")
        self.saved[node.name] = made
        return dict(made)

    # --- the plan --------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        once = {n.name for n in self.nodes if self._in_one_go(n)}
        for node in self.nodes:
            if node.name not in once:
                self.forward(node, "forward")
        backward_from = len(self.steps)
        seeds: dict[str, Buffer] = {}
        if self.training:
            seeds = Backward(self, once).run()
        values = {v: self.current[v] for v in self.wanted}
        for buffer in values.values():
            buffer.use(len(self.steps))
            buffer.last = FOREVER
        plan = Plan(
            self.graph,
            self.request,
            self.precision,
            self.nodes,
            self.choices,
            self.steps,
            self.buffers,
            values,
            seeds,
            backward_from,
            self.apart,
        )
        plan.arena_bytes = place(plan.in_arena)
        return plan

    def _in_one_go(self, node: Node) -> bool:
        outputs = set(node.outputs.values())
        return (
            self.differentiated(node)
            and self.choices[node.name].variant.has_forward_backward
            and outputs <= set(self.graph.loss)
            and not any(outputs & set(n.inputs.values()) for n in self.nodes)
        )
