"""The backward half of a training plan: for each gradient the step that writes it, its memory, and the steps that add.

Nodes are taken in reverse. The first consumer of a value writes its gradient and later ones add; an alias shares
memory until a step adds to it; a gradient may reuse the memory of a tensor without further readers.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.dtypes import resolve
from core.errors import BuildError
from core.graph import Node
from core.op import Variant
from core.plan.buffers import Buffer
from core.plan.builder import Builder
from core.plan.forward import run_forward
from core.plan.steps import Tensor


def backward(builder: Builder) -> dict[str, Buffer]:
    """Append every backward launcher, in reverse; the loss terms' gradients, which the engine writes. Nothing, unless
    the plan trains."""
    return Backward(builder).run() if builder.training else {}


class Backward:
    """The gradients of `b`: the step that writes each, its memory, and the steps that add."""

    def __init__(self, builder: Builder) -> None:
        self.b, self.live, self.nodes = builder, builder.live, builder.nodes
        recompute, wanted = set(builder.request.recompute), builder.live.wanted
        self.dropped = {n.name for n in self.nodes if n.op.name in recompute and not wanted & set(n.outputs.values())}
        self.redone: set[str] = set()
        self.grads: dict[str, Buffer] = {}  # value -> the buffer of its gradient
        self.holders: dict[Buffer, set[str]] = {}  # buffer -> the values whose gradient it holds
        self.produced: set[str] = set()  # parameters whose gradient has a producer already

    def run(self) -> dict[str, Buffer]:
        b = self.b
        seeds = {}
        for value in b.graph.loss:  # every term is part of the objective, whether or not anything trains before it
            seeds[value] = b.buffer("d" + value, b.graph.values[value].shape, "acc", "seed")
            if value in self.live.needs:
                self._hold(value, seeds[value])
        for index in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[index]
            if self.live.differentiated(node) and any(v in self.grads for v in node.outputs.values()):
                self._node(index, node)
            for value in node.outputs.values():
                if value in self.grads:
                    self.holders[self.grads[value]].discard(value)
        for name in sorted(self.live.trainable - self.produced):  # the loss does not depend on it: zero
            b.step("fill", None, None, {"target": b.param_grads[name]}, first_only=True)
        return seeds

    def _hold(self, value: str, buffer: Buffer) -> None:
        self.grads[value] = buffer
        self.holders.setdefault(buffer, set()).add(value)

    def _exclusive(self, value: str) -> Buffer:
        """The buffer of a value's gradient, copied first if it also holds another value's gradient."""
        buffer = self.grads[value]
        if self.holders[buffer] - {value} or buffer.home != "arena":
            own = self.b.gradient(value)
            self.b.step("copy", None, None, {"target": own, "source": buffer})
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
            if value in self.b.makers:
                self._ensure(self.b.makers[value])
        run_forward(self.b, node, "recompute")

    # --- one node --------------------------------------------------------------------------------------------

    def _node(self, index: int, node: Node) -> None:
        b, variant = self.b, self.b.choices[node.name].variant
        roles = {**node.inputs, **node.outputs}
        for role in variant.reads:
            if roles.get(role) in b.makers:
                self._ensure(b.makers[roles[role]])
        if variant.saved:
            self._ensure(node)
        if node.name in self.b.one_pass:
            tensors = b.values_read(node) | b.new_outputs(node) | b.new_saved(node, variant)
        else:
            tensors = {r: b.current[roles[r]] if r in roles else None for r in variant.reads if r not in node.op.params}
            for param in node.op.params:
                if param in variant.reads:
                    tensors[param] = b.params[node.params[param]] if param in node.params else None
            tensors |= b.saved[node.name]
        tensors |= b.extras(node, variant)
        tensors |= {"d" + r: self.grads.get(v) for r, v in node.outputs.items()}
        flags: dict[str, bool | str] = {}
        self._param_gradients(node, variant, tensors, flags)
        after = self._input_gradients(index, node, variant, tensors, flags)
        own = [r for r in (*node.inputs, *node.params) if "d" + r not in self._alias(variant)]
        if node.name in self.b.one_pass:
            b.step("forward_backward", node, variant, tensors, flags)
        elif any(tensors.get("d" + r) is not None for r in own):
            b.step("backward", node, variant, tensors, flags)
        for value, name in after:
            self._deliver(value, tensors[name])

    def _alias(self, variant: Variant) -> Mapping[str, str]:
        return variant.alias if self.b.request.alias else {}

    def _param_gradients(
        self, node: Node, variant: Variant, tensors: dict[str, Tensor], flags: dict[str, bool | str]
    ) -> None:
        b = self.b
        seen: set[str] = set()
        for role in node.op.params:
            name = node.params.get(role)
            if name is None or name not in self.live.trainable:
                tensors["d" + role] = None
                continue
            if name in seen:
                raise BuildError(f"{node.where}: node {node.name} uses the parameter {name} twice; tie it across nodes")
            seen.add(name)
            gradient = b.param_grads[name]
            if name in self.produced:
                flags["add_d" + role] = True
            elif role in variant.partial:
                b.step("fill", None, None, {"target": gradient}, first_only=True)
                flags["add_d" + role] = True
            else:
                flags["add_d" + role] = "later"
            self.produced.add(name)
            tensors["d" + role] = gradient

    def _input_gradients(
        self, index: int, node: Node, variant: Variant, tensors: dict[str, Tensor], flags: dict[str, bool | str]
    ) -> list[tuple[str, str]]:
        """Settle the place of each input gradient; returns (value, gradient name) pairs to deliver after the launch."""
        b, alias = self.b, self._alias(variant)
        after: list[tuple[str, str]] = []
        written: set[str] = set()
        for role, value in node.inputs.items():
            name = "d" + role
            is_source = any(source == name and self._needed(node, target) for target, source in alias.items())
            if value not in self.live.needs:
                tensors[name] = b.gradient(value, "temporary") if is_source else None
            elif name in alias:
                after.append((value, alias[name]))
            elif value not in self.grads:
                buffer = self._in_place(index, node, variant, name, tensors) or b.gradient(value)
                self._hold(value, buffer)
                tensors[name] = buffer
                written.add(value)
            elif role in variant.can_add and value not in written and not is_source:
                tensors[name] = self._exclusive(value)
                flags["add_" + name] = True
                written.add(value)
            else:
                tensors[name] = b.gradient(value, "temporary")
                after.append((value, name))
        for role in node.op.inputs:
            tensors.setdefault("d" + role, None)
        return after

    def _needed(self, node: Node, gradient: str) -> bool:
        return node.inputs.get(gradient[1:]) in self.live.needs

    def _deliver(self, value: str, source: Tensor) -> None:
        """The gradient in `source` becomes, or is added to, the value's gradient."""
        if source is None:
            return
        if value in self.grads:
            self.b.step("add", None, None, {"target": self._exclusive(value), "source": source})
        elif source.dtype == resolve(self.b.graph.values[value].dtype, self.b.precision):
            self._hold(value, source)
        else:
            own = self.b.gradient(value)
            self.b.step("copy", None, None, {"target": own, "source": source})
            self._hold(value, own)

    def _in_place(
        self, index: int, node: Node, variant: Variant, name: str, tensors: dict[str, Tensor]
    ) -> Buffer | None:
        """The memory that the variant lets this gradient overwrite, if no later step reads it."""
        target = variant.inplace.get(name) if self.b.request.in_place else None
        buffer = tensors.get(target) if target else None
        if target is None or buffer is None or buffer.home != "arena":
            return None
        value = node.inputs[name[1:]]
        if buffer.dtype != resolve(self.b.graph.values[value].dtype, self.b.precision):
            return None
        if target.startswith("d") and target[1:] in node.outputs:
            return buffer if self.holders[buffer] == {node.outputs[target[1:]]} else None
        held = {**node.inputs, **node.outputs}.get(target)
        if held is None or held in self.b.graph.inputs or held in self.live.wanted or self._read_later(held, index):
            return None
        return buffer

    def _read_later(self, value: str, index: int) -> bool:
        """Whether a later backward, or a recompute, reads this forward value."""
        for node in self.nodes[:index]:
            reads = self.b.choices[node.name].variant.reads
            if any({**node.inputs, **node.outputs}.get(role) == value for role in reads):
                return True
            if node.name in self.b.one_pass and value in node.inputs.values():
                return True
        return any(
            n.name in self.dropped and n.name not in self.redone and value in n.inputs.values() for n in self.nodes
        )
