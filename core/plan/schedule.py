"""What runs, in which order, on which tensors: forward, then backward with the gradient contract.

The order of decisions: nodes that the request needs -> fusion -> variants -> forward steps -> backward steps in
reverse, where the first consumer of a value writes its gradient and later ones add -> offsets in the arena.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.dtypes import resolve
from core.errors import BuildError, UsageError, did_you_mean
from core.graph import Graph, Node
from core.op import Op, Pattern, Variant
from core.plan.choose import Choice, Chooser, specs
from core.plan.fuse import FusionRules, fuse
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
    def traffic(self) -> int:
        """Bytes read and written by all steps."""
        return sum(step.nbytes for step in self.steps)


def make_plan(graph: Graph, request: Request, chooser: Chooser, layout: ParameterLayout) -> Plan:
    """The plan for `request`. Raises BuildError when a node cannot run or cannot be differentiated."""
    _check_request(graph, request, chooser)
    return _Planner(graph, request, chooser, layout).plan()


def _check_request(graph: Graph, request: Request, chooser: Chooser) -> None:
    for value in request.outputs:
        if value not in graph.values:
            raise UsageError(f'{graph.name} has no value "{value}"{did_you_mean(value, graph.values)}')
    for op in request.recompute:
        if op not in {n.op.name for n in graph.nodes}:
            known = sorted({n.op.name for n in graph.nodes})
            raise UsageError(f'[train] recompute "{op}": {graph.name} has no node of that op{did_you_mean(op, known)}')
    for name in request.fusion:
        fused = [o for o, op in chooser.registry.ops.items() if op.replaces]
        if name not in fused:
            raise UsageError(f"[fuse] {name}: no fused op of that name{did_you_mean(name, fused)}")


class _Planner:
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
        self.nodes = self._fused(self._live(graph.nodes))
        self.choices = {n.name: chooser.choose(n, graph, request.kind, self._differentiated(n)) for n in self.nodes}
        self.makers = {v: n for n in self.nodes for v in n.outputs.values()}
        used = {v for n in self.nodes for v in n.inputs.values()}
        self.inputs = {
            v: self._buffer(v, graph.inputs[v].shape, graph.inputs[v].dtype, "input")
            for v in graph.inputs
            if v in used or v in self.wanted
        }
        self.params = {p: self._buffer(p, w.shape, None, "param") for p, w in layout.places.items()}
        self.param_grads = {p: self._buffer("d" + p, layout.places[p].shape, "acc", "grad") for p in self.trainable}
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

    def _differentiated(self, node: Node) -> bool:
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

        def runs(node: Node) -> bool:
            if chooser.explicit(node, kind) is not None:
                return True
            try:
                chooser.choose(node, self.graph, kind, self._differentiated(node))
            except BuildError:
                return False
            return True

        def rank(op: Op) -> tuple[int, int, str]:
            best = max((v.priority for v in chooser.candidates(op)), default=-1)
            return -len(op.statements), -best, op.name

        patterns = []
        for op in sorted((o for o in chooser.registry.ops.values() if o.replaces), key=rank):
            setting = self.request.fusion.get(op.name, True)
            if setting is not False and chooser.candidates(op):
                patterns.append((op, setting if isinstance(setting, Mapping) else {}))
        return fuse(self.graph, nodes, FusionRules(patterns, frozenset(self.wanted), named, runs))

    # --- buffers and steps -----------------------------------------------------------------------------------

    def _buffer(
        self, name: str, shape: Sequence[int], dtype: str | None, home: str = "arena", role: str = "activation"
    ) -> Buffer:
        buffer = Buffer(name, tuple(shape), resolve(dtype, self.precision), home, role)
        self.buffers.append(buffer)
        return buffer

    def _gradient(self, value: str, role: str = "gradient") -> Buffer:
        found = self.graph.values[value]
        return self._buffer(("tmp.d" if role == "temporary" else "d") + value, found.shape, found.dtype, role=role)

    def _start_buffer(self) -> Buffer | None:
        if self.request.kind != GENERATE:
            return None
        rows = next(iter(self.inputs.values())).shape[0]
        return self._buffer("start", (rows,), "i32", "start")

    def _step(
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

    def _extras(self, node: Node, variant: Variant) -> dict[str, Tensor]:
        """Workspace, counters, and what the op uses: `start`, `key`, state."""
        extras: dict[str, Tensor] = {}
        t = specs(node, self.graph, self.precision)
        if nbytes := variant.workspace(t):
            extras["workspace"] = self._buffer(f"{node.name}.workspace", (nbytes,), "u8", role="workspace")
        if count := variant.counters(t):
            extras["counters"] = self._buffer(f"{node.name}.counters", (count,), "u32", "counter")
        if "start" in node.op.uses:
            extras["start"] = self.start
        if "random" in node.op.uses:
            if self.training and node.name not in self.keys:
                self.keys[node.name] = self._buffer(f"{node.name}.key", (4,), "u32", "key")
            extras["key"] = self.keys.get(node.name)
        for role, slot in node.op.state.items():
            if self.request.kind != GENERATE:
                extras[role] = None
                continue
            states = self.states.setdefault(node.name, {})
            if role not in states:
                shape = slot.pattern.shape({**node.dims, "S": self.request.capacity}, f"{node.name}.{role}")
                states[role] = self._buffer(f"{node.name}.{role}", shape, slot.pattern.dtype, "state")
            extras[role] = states[role]
        return extras

    def _forward(self, node: Node, kind: str) -> None:
        variant = self.choices[node.name].variant
        tensors = self._values_read(node)
        tensors |= self._new_outputs(node) | self._new_saved(node, variant) | self._extras(node, variant)
        self._step(kind, node, variant, tensors)

    def _values_read(self, node: Node) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = dict.fromkeys(node.op.inputs)
        tensors |= {r: self.current[v] for r, v in node.inputs.items()}
        tensors |= {p: self.params[node.params[p]] if p in node.params else None for p in node.op.params}
        return tensors

    def _new_outputs(self, node: Node) -> dict[str, Tensor]:
        for value in node.outputs.values():
            found = self.graph.values[value]
            self.current[value] = self._buffer(value, found.shape, found.dtype)
        return {r: self.current[v] for r, v in node.outputs.items()}

    def _new_saved(self, node: Node, variant: Variant) -> dict[str, Tensor]:
        where = f"{variant.op}.{variant.name}, saved"
        made: dict[str, Buffer] = {}
        for role, text in variant.saved.items():
            pattern = Pattern.parse(text, where)
            shape = pattern.shape(node.dims, f"{where} {role}")
            made[role] = self._buffer(f"{node.name}.{role}", shape, pattern.dtype, role="saved")
        self.saved[node.name] = made
        return dict(made)

    # --- the plan --------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        once = {n.name for n in self.nodes if self._in_one_go(n)}
        for node in self.nodes:
            if node.name not in once:
                self._forward(node, "forward")
        backward_from = len(self.steps)
        seeds: dict[str, Buffer] = {}
        if self.training:
            seeds = _Backward(self, once).run()
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
        )
        plan.arena_bytes = place(plan.in_arena)
        return plan

    def _in_one_go(self, node: Node) -> bool:
        outputs = set(node.outputs.values())
        return (
            self._differentiated(node)
            and self.choices[node.name].variant.has_forward_backward
            and outputs <= set(self.graph.loss)
            and not any(outputs & set(n.inputs.values()) for n in self.nodes)
        )


class _Backward:
    """The backward half of a training plan: who writes which gradient, where, and who adds."""

    def __init__(self, planner: _Planner, once: set[str]) -> None:
        self.p = planner
        self.nodes = planner.nodes
        self.once = once
        recompute = set(planner.request.recompute)
        self.dropped = {
            n.name for n in self.nodes if n.op.name in recompute and not planner.wanted & set(n.outputs.values())
        }
        self.redone: set[str] = set()
        self.grads: dict[str, Buffer] = {}  # value -> the buffer of its gradient
        self.holders: dict[Buffer, set[str]] = {}  # buffer -> the values whose gradient lies in it
        self.produced: set[str] = set()  # parameters whose gradient has a producer already

    def run(self) -> dict[str, Buffer]:
        p = self.p
        seeds = {}
        for value in p.graph.loss:
            if value in p.needs:
                seeds[value] = p._buffer("d" + value, p.graph.values[value].shape, "acc", "seed")
                self._hold(value, seeds[value])
        for index in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[index]
            if p._differentiated(node) and any(v in self.grads for v in node.outputs.values()):
                self._node(index, node)
            for value in node.outputs.values():
                if value in self.grads:
                    self.holders[self.grads[value]].discard(value)
        for name in sorted(p.trainable - self.produced):  # nothing leads from the loss to it: its gradient is zero
            p._step("fill", None, None, {"target": p.param_grads[name]}, first_only=True)
        return seeds

    def _hold(self, value: str, buffer: Buffer) -> None:
        self.grads[value] = buffer
        self.holders.setdefault(buffer, set()).add(value)

    def _exclusive(self, value: str) -> Buffer:
        """The buffer of a value's gradient, copied first if another value's gradient lies there too."""
        buffer = self.grads[value]
        if self.holders[buffer] - {value} or buffer.home != "arena":
            own = self.p._gradient(value)
            self.p._step("copy", None, None, {"target": own, "source": buffer})
            self.holders[buffer].discard(value)
            self._hold(value, own)
        return self.grads[value]

    # --- recompute -------------------------------------------------------------------------------------------

    def _ensure(self, node: Node) -> None:
        """Run the forward of a dropped node again, and of the dropped ones that it reads."""
        if node.name not in self.dropped or node.name in self.redone:
            return
        self.redone.add(node.name)
        for value in node.inputs.values():
            if value in self.p.makers:
                self._ensure(self.p.makers[value])
        self.p._forward(node, "recompute")

    # --- one node --------------------------------------------------------------------------------------------

    def _node(self, index: int, node: Node) -> None:
        p, variant = self.p, self.p.choices[node.name].variant
        roles = {**node.inputs, **node.outputs}
        for role in variant.reads:
            if roles.get(role) in p.makers:
                self._ensure(p.makers[roles[role]])
        if variant.saved:
            self._ensure(node)
        if node.name in self.once:
            tensors = p._values_read(node) | p._new_outputs(node) | p._new_saved(node, variant)
        else:
            tensors = {r: p.current[roles[r]] if r in roles else None for r in variant.reads if r not in node.op.params}
            for param in node.op.params:
                if param in variant.reads:
                    tensors[param] = p.params[node.params[param]] if param in node.params else None
            tensors |= p.saved[node.name]
        tensors |= p._extras(node, variant)
        tensors |= {"d" + r: self.grads.get(v) for r, v in node.outputs.items()}
        flags: dict[str, bool | str] = {}
        self._param_gradients(node, variant, tensors, flags)
        after = self._input_gradients(index, node, variant, tensors, flags)
        own = [r for r in (*node.inputs, *node.params) if "d" + r not in self._alias(variant)]
        if node.name in self.once:
            p._step("forward_backward", node, variant, tensors, flags)
        elif any(tensors.get("d" + r) is not None for r in own):
            p._step("backward", node, variant, tensors, flags)
        for value, name in after:
            self._deliver(value, tensors[name])

    def _alias(self, variant: Variant) -> Mapping[str, str]:
        return variant.alias if self.p.request.alias else {}

    def _param_gradients(
        self, node: Node, variant: Variant, tensors: dict[str, Tensor], flags: dict[str, bool | str]
    ) -> None:
        p = self.p
        seen: set[str] = set()
        for role in node.op.params:
            name = node.params.get(role)
            if name is None or name not in p.trainable:
                tensors["d" + role] = None
                continue
            if name in seen:
                raise BuildError(f"{node.where}: node {node.name} uses the parameter {name} twice; tie it across nodes")
            seen.add(name)
            gradient = p.param_grads[name]
            if name in self.produced:
                flags["add_d" + role] = True
            elif role in variant.partial:
                p._step("fill", None, None, {"target": gradient}, first_only=True)
                flags["add_d" + role] = True
            else:
                flags["add_d" + role] = "later"
            self.produced.add(name)
            tensors["d" + role] = gradient

    def _input_gradients(
        self, index: int, node: Node, variant: Variant, tensors: dict[str, Tensor], flags: dict[str, bool | str]
    ) -> list[tuple[str, str]]:
        """Settle where each input gradient goes; returns (value, gradient name) pairs to deliver after the launch."""
        p, alias = self.p, self._alias(variant)
        after: list[tuple[str, str]] = []
        written: set[str] = set()
        for role, value in node.inputs.items():
            name = "d" + role
            is_source = any(source == name and self._needed(node, target) for target, source in alias.items())
            if value not in p.needs:
                tensors[name] = p._gradient(value, "temporary") if is_source else None
            elif name in alias:
                after.append((value, alias[name]))
            elif value not in self.grads:
                buffer = self._in_place(index, node, variant, name, tensors) or p._gradient(value)
                self._hold(value, buffer)
                tensors[name] = buffer
                written.add(value)
            elif role in variant.can_add and value not in written and not is_source:
                tensors[name] = self._exclusive(value)
                flags["add_" + name] = True
                written.add(value)
            else:
                tensors[name] = p._gradient(value, "temporary")
                after.append((value, name))
        for role in node.op.inputs:
            tensors.setdefault("d" + role, None)
        return after

    def _needed(self, node: Node, gradient: str) -> bool:
        return node.inputs.get(gradient[1:]) in self.p.needs

    def _deliver(self, value: str, source: Tensor) -> None:
        """A gradient that lies in `source` becomes, or is added to, the value's gradient."""
        if source is None:
            return
        if value in self.grads:
            self.p._step("add", None, None, {"target": self._exclusive(value), "source": source})
        elif source.dtype == resolve(self.p.graph.values[value].dtype, self.p.precision):
            self._hold(value, source)
        else:
            own = self.p._gradient(value)
            self.p._step("copy", None, None, {"target": own, "source": source})
            self._hold(value, own)

    def _in_place(
        self, index: int, node: Node, variant: Variant, name: str, tensors: dict[str, Tensor]
    ) -> Buffer | None:
        """The memory that the variant says this gradient may overwrite, if nobody needs it any more."""
        target = variant.inplace.get(name) if self.p.request.in_place else None
        buffer = tensors.get(target) if target else None
        if target is None or buffer is None or buffer.home != "arena":
            return None
        value = node.inputs[name[1:]]
        if buffer.dtype != resolve(self.p.graph.values[value].dtype, self.p.precision):
            return None
        if target.startswith("d") and target[1:] in node.outputs:
            return buffer if self.holders[buffer] == {node.outputs[target[1:]]} else None
        held = {**node.inputs, **node.outputs}.get(target)
        if held is None or held in self.p.graph.inputs or held in self.p.wanted or self._read_later(held, index):
            return None
        return buffer

    def _read_later(self, value: str, index: int) -> bool:
        """Whether a backward still to come, or a recompute, reads this forward value."""
        for node in self.nodes[:index]:
            reads = self.p.choices[node.name].variant.reads
            if any({**node.inputs, **node.outputs}.get(role) == value for role in reads):
                return True
            if node.name in self.once and value in node.inputs.values():
                return True
        return any(
            n.name in self.dropped and n.name not in self.redone and value in n.inputs.values() for n in self.nodes
        )
