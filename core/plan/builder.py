"""A plan in the making: its buffers and steps so far. Passes read and extend it; it decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from core.dtypes import resolve
from core.graph import Graph, Node
from core.graph.init import settle_state
from core.op import Pattern, Variant
from core.plan.buffers import FOREVER, Buffer
from core.plan.choose import specs
from core.plan.layout import ParameterLayout
from core.plan.live import Live
from core.plan.steps import GENERATE, TRAIN, Choice, Request, Step, Tensor
from core.roles import S


@dataclass
class Builder:
    """Buffers and steps of a plan, and where each value is now.

    makers: value -> the node that computes it. one_pass: names of nodes whose forward and backward are one launch, in
    backward. current: value -> the buffer that holds it now. saved, states: node -> its tensors by role.
    """

    graph: Graph
    request: Request
    precision: str
    live: Live
    nodes: list[Node]
    choices: dict[str, Choice]
    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    makers: dict[str, Node] = field(default_factory=dict)
    one_pass: set[str] = field(default_factory=set)
    params: dict[str, Buffer] = field(default_factory=dict)
    param_grads: dict[str, Buffer] = field(default_factory=dict)
    current: dict[str, Buffer] = field(default_factory=dict)
    saved: dict[str, dict[str, Buffer]] = field(default_factory=dict)
    states: dict[str, dict[str, Buffer]] = field(default_factory=dict)
    keys: dict[str, Buffer] = field(default_factory=dict)
    start: Buffer | None = None
    counts: Buffer | None = None

    @classmethod
    def of(
        cls,
        graph: Graph,
        request: Request,
        live: Live,
        nodes: list[Node],
        choices: dict[str, Choice],
        layout: ParameterLayout,
        precision: str,
    ) -> Builder:
        """One without steps: buffers of the graph's inputs, the parameters and their gradients."""
        b = cls(graph, request, precision, live, nodes, choices)
        b.makers = {v: n for n in nodes for v in n.outputs.values()}
        used = {v for n in nodes for v in n.inputs.values()} | live.wanted
        b.current = {v: b.buffer(v, i.shape, i.dtype, "input") for v, i in graph.inputs.items() if v in used}
        b.params = {p: b.buffer(p, w.shape, None, "param") for p, w in layout.places.items()}
        trains = [p for p in layout.places if p in live.trainable]
        b.param_grads = {p: b.buffer("d" + p, layout.places[p].shape, "acc", "grad") for p in trains}
        if request.kind == GENERATE:
            rows = next((v.shape[0] for v in b.current.values()), 0)  # a prefill without state runs nothing
            if rows:
                b.start, b.counts = (b.buffer(name, (rows,), "i32", name) for name in ("start", "counts"))
        return b

    @property
    def training(self) -> bool:
        return self.request.kind == TRAIN

    # --- buffers ---------------------------------------------------------------------------------------------

    def buffer(
        self, name: str, shape: Sequence[int], dtype: str | None, home: str = "arena", role: str = "activation"
    ) -> Buffer:
        buffer = Buffer(name, tuple(shape), resolve(dtype, self.precision), home, role)
        self.buffers.append(buffer)
        return buffer

    def gradient(self, value: str, role: str = "gradient") -> Buffer:
        spec = self.graph.values[value]
        return self.buffer(("tmp.d" if role == "temporary" else "d") + value, spec.shape, spec.dtype, role=role)

    def new_outputs(self, node: Node) -> dict[str, Tensor]:
        for value in node.outputs.values():
            spec = self.graph.values[value]
            self.current[value] = self.buffer(value, spec.shape, spec.dtype)
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

    def extras(self, node: Node, variant: Variant) -> dict[str, Tensor]:
        """Workspace, counters, and the op's own inputs: `start`, `key`, state."""
        extras: dict[str, Tensor] = {}
        t = specs(node, self.graph, self.precision, self.request.capacity)
        t.config = self.choices[node.name].config_for(t)
        if nbytes := variant.workspace(t):
            extras["workspace"] = self.buffer(f"{node.name}.workspace", (nbytes,), "u8", role="workspace")
        if count := variant.counters(t):
            extras["counters"] = self.buffer(f"{node.name}.counters", (count,), "u32", "counter")
        if "start" in node.op.uses:
            extras["start"] = self.start
        if "counts" in node.op.uses:
            extras["counts"] = self.counts
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
                shape = slot.pattern.shape({**node.dims, S: self.request.capacity}, f"{node.name}.{role}")
                states[role] = self.buffer(f"{node.name}.{role}", shape, slot.pattern.dtype, "state")
                states[role].init = self._initial(node, role)
            extras[role] = states[role]
        return extras

    @staticmethod
    def _initial(node: Node, role: str) -> str:
        """The settled init rule of a state of constant size; "" of a cache, whose places are written before they are
        read."""
        rule = node.op.constant_state.get(role)
        return settle_state(rule, node.dims, f"{node.name}, state {role}") if rule else ""

    def keep(self, wanted: Iterable[str]) -> dict[str, Buffer]:
        """The buffers of these values, in memory that no later step is given."""
        values = {v: self.current[v] for v in wanted}
        for buffer in values.values():
            buffer.use(len(self.steps))
            buffer.last = FOREVER
        return values

    # --- steps -----------------------------------------------------------------------------------------------

    def values_read(self, node: Node) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = dict.fromkeys(node.op.inputs)
        tensors |= {r: self.current[v] for r, v in node.inputs.items()}
        tensors |= {p: self.params[node.params[p]] if p in node.params else None for p in node.op.params}
        return tensors

    def step(
        self,
        kind: str,
        node: Node | None,
        variant: Variant | None,
        tensors: dict[str, Tensor],
        flags: Mapping[str, bool | str] | None = None,
        first_only: bool = False,
    ) -> None:
        for buffer in tensors.values():
            if buffer is not None:
                buffer.use(len(self.steps))
        self.steps.append(Step(kind, node, variant, tensors, dict(flags or {}), first_only))
